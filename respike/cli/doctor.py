"""`respike doctor`: what is installed and found on this machine."""

from dataclasses import asdict

import click

from respike.cli import console


@click.command(
    epilog="""\b
Examples:
  respike doctor
  respike doctor --json
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show what is installed and found: packages, ffmpeg, devices, cores, memory, disk.

    Exits 1 if something that respike needs is missing.
    """
    from respike.workflows.environment import check_environment

    checks = check_environment()
    is_complete = all(check.ok for check in checks)
    if as_json:
        console.print_json({"ok": is_complete, "checks": [asdict(check) for check in checks]})
    else:
        rows = [(check.name, "ok" if check.ok else "MISSING", check.found) for check in checks]
        console.print_table(("", "", "found"), rows)
        for check in checks:
            if check.hint:
                console.print_line(f"{check.name}: {check.hint}")
    if not is_complete:
        context.exit(1)
