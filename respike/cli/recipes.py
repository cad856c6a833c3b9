"""`respike recipes`: the recipes by name, or one with the commands that prepare its data."""

import dataclasses
from typing import Any

import click

from respike.cli import completion, console
from respike.common.config import to_plain
from respike.zoo.recipe import Recipe, list_recipes, read_recipe


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
    """List the recipes of `respike train`, or show the settings of NAME: a recipe or a TOML file."""
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


def _to_json(recipe: Recipe) -> dict[str, Any]:
    own = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return own | {
        "prepare": list(recipe.prepare),
        "options": to_plain(recipe.options),
        "training": recipe.training.to_json(),
    }


def _show(name: str, recipe: Recipe) -> None:
    console.print_line(recipe.title)
    if recipe.notes:
        for line in ("", *recipe.notes.strip().splitlines(), ""):
            console.print_line(line)
    plain = Recipe().training.to_json()
    facts: dict[str, object] = {"network": recipe.network, "branches": recipe.branches}
    facts["init_backbone"] = recipe.init_backbone
    facts |= recipe.changed_options
    # only settings that differ from their defaults
    facts |= {setting: value for setting, value in recipe.training.to_json().items() if value != plain[setting]}
    console.print_facts(facts, title="settings that differ from the defaults")
    for command_line in recipe.prepare:
        console.print_line(f"shards: {command_line}")
    console.print_line(f"next: respike train --recipe {name}")
