"""`respike recipes`: the recipes by name, or one with the commands that go before it."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion

if TYPE_CHECKING:
    from respike.zoo.recipe import Recipe


@click.command(
    epilog="""\b
Examples:
  respike recipes
  respike recipes hmdb51
  respike train --recipe hmdb51 --data shards/hmdb51-split1 --epochs 50
"""
)
@click.argument("name", required=False, shell_complete=completion.recipes)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the recipes of `respike train`, or show what is in the one called NAME (or in a TOML file)."""
    from respike.cli import console
    from respike.zoo.recipe import list_recipes, read_recipe

    if name is None:
        titles = {each: read_recipe(each).title for each in list_recipes()}
        if as_json:
            console.print_json(titles)
            return
        console.print_table(("recipe", "for"), list(titles.items()))
        console.print_line("next: respike recipes NAME")
        return
    recipe = read_recipe(name)
    if as_json:
        console.print_json(_to_json(recipe))
    else:
        _show(name, recipe)


def _to_json(recipe: "Recipe") -> dict[str, Any]:
    from respike.common.config import to_plain

    own = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return own | {
        "prepare": list(recipe.prepare),
        "options": to_plain(recipe.options),
        "training": recipe.training.to_json(),
    }


def _show(name: str, recipe: "Recipe") -> None:
    from respike.cli import console
    from respike.zoo.recipe import Recipe

    console.print_line(recipe.title)
    if recipe.notes:
        for line in ("", *recipe.notes.strip().splitlines(), ""):
            console.print_line(line)
    plain = Recipe().training.to_json()
    facts: dict[str, object] = {"network": recipe.network, "branches": recipe.branches}
    facts["init_backbone"] = recipe.init_backbone
    facts |= recipe.changed_options
    # what stands at its default would only hide what does not
    facts |= {setting: value for setting, value in recipe.training.to_json().items() if value != plain[setting]}
    console.print_facts(facts, title="settings, beside the defaults")
    for command_line in recipe.prepare:
        console.print_line(f"shards: {command_line}")
    console.print_line(f"next: respike train --recipe {name}")
