"""`respike demo`: videos, shards, training, scores and energy on this machine, and a page that shows them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli import console
from respike.cli.options import OutputFolder
from respike.common.text import format_joules

if TYPE_CHECKING:
    from respike.workflows.demo import DemoResult


@click.command(
    epilog="""\b
Examples:
  respike demo
  respike demo --ablate
  respike demo --out /tmp/demo --json
"""
)
@click.option(
    "--out", type=OutputFolder(), metavar="DIR", default=Path("demo"), show_default=True, help="Folder for everything."
)
@click.option("--ablate", is_flag=True, help="Also train each branch alone, with the same settings.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training clips.  [default: 12]")
@click.option(
    "--videos", type=click.IntRange(min=1), help="Training videos a class; half as many to test.  [default: 8]"
)
@click.option("--seed", default=0, show_default=True, help="Seed of the videos and the training.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that make and prepare videos.  [default: cores]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def command(
    out: Path,
    ablate: bool,
    epochs: int | None,
    videos: int | None,
    seed: int,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make videos, prepare them, train on the CPU, score the test videos, write OUT/report.html.

    Videos and shards of an earlier demo in OUT are kept, its networks are trained again. Nothing else in OUT is
    touched. The 16 classes are 4 things at rest, each with 4 motions of something else: key frames show the thing,
    events the motion, and only both together tell all 16 apart.
    """
    from respike.workflows.demo import run_demo

    result = run_demo(
        out,
        ablate=ablate,
        num_epochs=epochs,
        num_videos=videos,
        seed=seed,
        num_workers=workers,
        progress=console.make_progress(quiet=quiet, json=as_json),
    )
    if as_json:
        scores = {network.branches: network.scores.to_json() for network in result.networks}
        console.print_json({"report": str(result.page), "seconds": round(result.seconds, 1), "scores": scores})
    elif not quiet:
        _print(result, out)


def _print(result: "DemoResult", out: Path) -> None:
    rows = [
        (
            network.title,
            console.format_share(network.scores.clip.top1),
            console.format_share(network.scores.video.top1),
            f"{network.num_parameters:,}",
            format_joules(network.energy.joules),
        )
        for network in result.networks
    ]
    console.print_table(("network", "top-1 of clips", "of videos", "parameters", "energy a clip"), rows)
    console.print_line(f"took {console.format_seconds(result.seconds)}; see {result.page}")
    console.print_line(f"next: respike inspect {out / 'shards'}")
