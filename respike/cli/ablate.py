"""`respike ablate`: a small grid of settings, each trained and scored; one table and three charts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion, console, options
from respike.cli.options import OutputFolder
from respike.common.text import counted

if TYPE_CHECKING:
    from respike.workflows.ablation import AblationResult

# kept here so that --help need not load torch and matplotlib
_BRANCHES = ("hybrid", "concat", "ann", "snn")
_METRICS = ("video_top1", "clip_top1", "video_mean_class_accuracy")
_SCENES = ("plain", "hard")
_FUSION = r"default|none|((faithful|additive):)?[0-9]+(,[0-9]+)+|faithful|additive"


@click.command(
    cls=options.ListCommand,
    epilog="""\b
Examples:
  respike ablate demo --stride 2,4,8 --seeds 3
  respike ablate demo --branches hybrid,concat,ann,snn --epochs 6
  respike ablate videos --threshold 1,8,16 --recipe modern --epochs 20 --out ablations/theta
  respike ablate hmdb51 --root /data/hmdb51 --fusion default,additive,none --fusion 0,0,1,1 --recipe hmdb51
  respike ablate demo --scenes hard --fusion faithful:4,2,1,1 --fusion none --recipe demo16hard --seeds 3
""",
)
@click.argument("source", shell_complete=completion.sources)
@click.option("--root", type=click.Path(path_type=Path), help="Where the videos are.  [default: data/SOURCE]")
@click.option("--split", type=int, help="Which official split.  [default: 1 if there are splits]")
@click.option("--out", type=OutputFolder(), metavar="DIR", help="Folder for everything.  [default: ablations/SOURCE]")
@options.several(
    "--stride", "strides", type=click.INT, default=(4,), pattern="[0-9]+", metavar="N,…", help="Frames a group."
)
@options.several(
    "--threshold",
    "thresholds",
    type=click.INT,
    default=(8,),
    pattern="[0-9]+",
    metavar="θ,…",
    help="Contrast threshold of events, in grey levels; 1 is exact.",
)
@options.several(
    "--branches",
    type=click.Choice(_BRANCHES),
    default=("hybrid",),
    pattern="|".join(_BRANCHES),
    metavar="NAME,…",
    help="hybrid (both branches, fused), concat (both, not fused), ann (key frames alone), snn (events alone).",
)
@options.several(
    "--fusion",
    "fusions",
    default=("default",),
    pattern=_FUSION,
    separator=options.WORD_COMMA,
    metavar="default|none|[KIND:]A,B,C,D|KIND",
    help="KIND: faithful or additive. A to D: how much maps are pooled before fusion at strides 4 to 32; 0: no fusion.",
)
@click.option(
    "--seeds", "num_seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings per combination."
)
@click.option(
    "--recipe",
    shell_complete=completion.recipes,
    metavar="NAME|FILE",
    help="How every cell is trained.  [default: the demo's own for demo]",
)
@click.option(
    "--init",
    shell_complete=completion.checkpoints,
    metavar="CHECKPOINT",
    help="Start every cell from the parts of a trained network that fit.",
)
@click.option("--epochs", type=int, help="Passes over the training clips.  [default: the recipe's]")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Any other setting of the recipe.")
@click.option("--clip-length", type=click.IntRange(min=1), default=16, show_default=True, help="Frames a clip.")
@click.option(
    "--videos", "num_videos", type=click.IntRange(min=1), help="demo: training videos a class; half as many to test."
)
@click.option("--scenes", type=click.Choice(_SCENES), default=_SCENES[0], show_default=True, help="demo: which scenes.")
@click.option(
    "--figure",
    "metric",
    type=click.Choice(_METRICS),
    default=_METRICS[0],
    show_default=True,
    help="Score that the charts show.",
)
@click.option(
    "--workers",
    "num_workers",
    type=click.IntRange(min=1),
    help="Processes that make and prepare videos.  [default: cores]",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print every cell's result as JSON.")
def command(
    strides: tuple[int, ...],
    thresholds: tuple[int, ...],
    branches: tuple[str, ...],
    fusions: tuple[str, ...],
    num_seeds: int,
    epochs: int | None,
    assignments: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train every combination of the given settings, score it, count its energy.

    SOURCE is demo, a data set such as hmdb51, or a folder of class folders of videos. OUT gets results.jsonl,
    table.md, accuracy.png, accuracy_by_energy.png and accuracy_by_stride.png after each cell. After a stop run the same
    command to go on, or add values to add cells: what is finished is kept.
    """
    from respike.workflows.ablation import AblationConfig, run_ablation
    from respike.workflows.ablation_grid import Grid
    from respike.zoo.recipe import parse_assignment

    overrides = dict(map(parse_assignment, assignments)) | ({} if epochs is None else {"epochs": epochs})
    grid = Grid(strides=strides, thresholds=thresholds, branches=branches, fusions=fusions, num_seeds=num_seeds)
    config = AblationConfig(grid=grid, overrides=overrides, **settings)
    result = run_ablation(config, console.make_progress(quiet=quiet, json=as_json))
    if as_json:
        console.print_json(result.to_json())
    elif not quiet:
        _print(result, config.source)


def _print(result: "AblationResult", source: str) -> None:
    from respike.workflows.ablation import COLUMNS, RESULTS_NAME, TABLE_NAME, table_rows

    title = f"{counted(len(result.results), 'cell')} of {source}"
    console.print_table(COLUMNS, table_rows(result.summaries), title=title)
    console.print_line(f"see {result.folder}: {TABLE_NAME}, {RESULTS_NAME} and three charts")
