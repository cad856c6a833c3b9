"""`respike ablate`: a small grid of settings → one training a cell, one table, three pictures."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion
from respike.cli.options import OutputFolder, Spread, spreading_command
from respike.common.text import counted

if TYPE_CHECKING:
    from respike.workflows.ablation import AblateOutcome, AblateRequest
    from respike.zoo.recipe import Recipe

_BRANCHES = ("hybrid", "concat", "ann", "snn")
_FUSION = re.compile(r"default|none|((faithful|additive):)?[0-9]+(,[0-9]+)+|faithful|additive")
_FIGURES = ("video_top1", "clip_top1", "video_mean_class_accuracy")
_PLAIN = "plain"
_DEMO_RECIPES = {_PLAIN: "demo16", "hard": "demo16hard"}
_SPREAD: Spread = {
    "--stride": str.isdecimal,
    "--threshold": str.isdecimal,
    "--branches": _BRANCHES.__contains__,
    "--fusion": lambda word: _FUSION.fullmatch(word) is not None,
}


@click.command(
    cls=spreading_command(_SPREAD),
    epilog="""\b
Examples:
  respike ablate demo --stride 2 4 8 --seeds 3
  respike ablate demo --branches hybrid concat ann snn --epochs 6
  respike ablate videos --threshold 1 8 16 --recipe modern --epochs 20 --out ablations/theta
  respike ablate hmdb51 --root /data/hmdb51 --fusion default additive none 0,0,1,1 --recipe hmdb51
  respike ablate demo --scenes hard --fusion faithful:4,2,1,1 additive:4,2,1,1 none --recipe demo16hard --seeds 3
""",
)
@click.argument("source", shell_complete=completion.sources)
@click.option("--root", type=click.Path(path_type=Path), help="Where the videos lie.  [default: data/SOURCE]")
@click.option("--split", type=int, help="Which official split.  [default: 1 where there are splits]")
@click.option("--out", type=OutputFolder(), metavar="DIR", help="Where all goes.  [default: ablations/SOURCE]")
@click.option("--stride", "strides", type=int, multiple=True, default=(4,), show_default="4", help="Frames a group.")
@click.option(
    "--threshold",
    "thresholds",
    type=int,
    multiple=True,
    default=(8,),
    show_default="8",
    metavar="θ",
    help="Of events; 1 is exact.",
)
@click.option(
    "--branches",
    type=click.Choice(_BRANCHES),
    multiple=True,
    default=("hybrid",),
    show_default="hybrid",
    help="Both fused, both unfused, key frames alone, events alone.",
)
@click.option(
    "--fusion",
    "fusions",
    multiple=True,
    default=("default",),
    show_default="default",
    metavar="default|none|[KIND:]A,B,C,D|KIND",
    help="KIND: faithful or additive. A to D: how maps are pooled before fusion at strides 4 to 32; 0: no fusion.",
)
@click.option(
    "--seeds", "num_seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings a setting."
)
@click.option(
    "--recipe",
    shell_complete=completion.recipes,
    metavar="NAME|FILE",
    help="How every cell is trained.  [default: the demo's own]",
)
@click.option(
    "--init",
    shell_complete=completion.checkpoints,
    metavar="CHECKPOINT",
    help="Start every cell from what fits of a trained network.",
)
@click.option("--epochs", type=int, help="Passes over the training clips.  [default: the recipe's]")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Any other setting of the recipe.")
@click.option("--clip-length", type=click.IntRange(min=1), default=16, show_default=True, help="Frames a clip.")
@click.option("--videos", type=click.IntRange(min=1), help="demo: videos a class to train; half as many test.")
@click.option(
    "--scenes", type=click.Choice(tuple(_DEMO_RECIPES)), default=_PLAIN, show_default=True, help="demo: of which kind."
)
@click.option(
    "--figure", type=click.Choice(_FIGURES), default=_FIGURES[0], show_default=True, help="What the pictures show."
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that make and prepare videos.  [default: cores]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print every cell's result as JSON.")
def command(
    source: str,
    root: Path | None,
    split: int | None,
    out: Path | None,
    recipe: str | None,
    init: str | None,
    epochs: int | None,
    assignments: tuple[str, ...],
    clip_length: int,
    videos: int | None,
    scenes: str,
    figure: str,
    workers: int | None,
    quiet: bool,
    as_json: bool,
    **axes: Any,
) -> None:
    """Train every combination of the settings given, score it, count its energy.

    SOURCE is demo, a data set such as hmdb51, or a folder of class folders of videos. OUT gets results.jsonl,
    table.md, accuracy.png, accuracy_by_energy.png and accuracy_by_stride.png after each cell. Run the same command
    again to go on where it was stopped, or with more values to add cells: what is finished is kept.
    """
    from respike.cli import console
    from respike.workflows.ablation import AblateRequest, run_ablation
    from respike.workflows.ablation_grid import Grid

    if (videos or scenes != _PLAIN) and (source != "demo" or root is not None):
        raise click.UsageError(f"--{'videos' if videos else 'scenes'} goes with the demo's own videos")
    name = recipe or (_DEMO_RECIPES[scenes] if source == "demo" else None)
    values = _read_values(assignments, epochs)
    request = AblateRequest(
        source=source,
        root=root,
        split=split,
        out=out or Path("ablations") / (Path(source).resolve().name if scenes == _PLAIN else f"{source}-{scenes}"),
        grid=Grid(**axes),
        recipe=_read_recipe(name, values),
        recipe_name=name,
        init=init,
        is_batch_size_given="batch_size" in values,
        clip_length=clip_length,
        num_videos=videos,
        num_workers=workers,
        scenes=None if scenes == _PLAIN else scenes,
        figure=figure,
    )
    outcome = run_ablation(request, console.make_progress(quiet=quiet, json=as_json))
    _tell(request, outcome, quiet=quiet, as_json=as_json)


def _read_values(assignments: Sequence[str], epochs: int | None) -> dict[str, Any]:
    """Settings of the recipe that are given otherwise. Raises UsageError on one that is an axis of the grid."""
    from respike.zoo.recipe import parse_assignment

    values = dict(map(parse_assignment, assignments)) | ({} if epochs is None else {"epochs": epochs})
    for axis in ("seed", "branches"):
        if axis in values:
            raise click.UsageError(f"{axis} is an axis of the grid: use --seeds and --branches")
    return values


def _read_recipe(name: str | None, values: dict[str, Any]) -> "Recipe":
    from respike.zoo.recipe import Recipe, read_recipe

    return (read_recipe(name) if name else Recipe()).override(values)


def _tell(request: "AblateRequest", outcome: "AblateOutcome", *, quiet: bool, as_json: bool) -> None:
    from respike.cli import console

    if as_json:
        cells = [result for _, result in outcome.results]
        console.print_json({"out": str(request.out), "num_kept": outcome.num_kept, "cells": cells})
    elif not quiet:
        from respike.workflows.ablation import COLUMNS, TABLE_NAME, table_rows

        console.print_table(
            COLUMNS, table_rows(outcome.summaries), title=f"{counted(len(outcome.results), 'cell')} of {request.source}"
        )
        console.print_line(f"look at {request.out}: {TABLE_NAME}, results.jsonl and three pictures")
