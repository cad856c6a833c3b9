"""Pages: HTML pages that need no other file, made from templates."""

import jinja2


def render_page(template: str, **values: object) -> str:
    """Fill a template of `respike/workflows/templates` with `values`, which are escaped as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("respike.workflows"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["thousands"] = lambda count: f"{count:,}"
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    return environment.get_template(template).render(**values)
