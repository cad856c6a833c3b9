"""`respike runs`: the trainings that lie on disk, listed, or some of them side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli.defaults import RUNS_ROOT
from respike.errors import RespikeError

if TYPE_CHECKING:
    from respike.zoo.runs import RunSummary


@click.command(
    epilog="""\b
Examples:
  respike runs
  respike runs runs/a runs/b
  respike runs --root demo/runs --json
"""
)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), default=RUNS_ROOT, show_default=True, help="Where to look.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(folders: tuple[Path, ...], root: Path, as_json: bool) -> None:
    """List the runs under --root; with FOLDERS, those alone, and in what their settings differ."""
    from respike.cli import render
    from respike.zoo.runs import differing_settings, find_runs, summarise_run

    found = list(folders) or find_runs(root)
    if not found:
        raise RespikeError(
            f"there is no run under {root}/", "make one by `respike train`, or look elsewhere with --root"
        )
    runs = []
    for folder in found:
        try:
            runs.append(summarise_run(folder))
        except RespikeError as error:
            # one run spoilt must not hide the others
            if folders:
                raise
            render.print_error(f"left out: {error.problem}", error.hint, as_json=as_json)
    if as_json:
        render.print_json([run.to_json() for run in runs])
        return
    _print_runs(runs)
    if folders:
        rows = [(name, *map(str, values)) for name, values in differing_settings(runs).items()]
        if rows:
            render.print_table(("setting", *(run.folder.name for run in runs)), rows, title="where they differ")
        elif len(runs) > 1:
            render.print_line("their settings are the same")


def _print_runs(runs: "list[RunSummary]") -> None:
    from respike.cli import render

    def share(run: "RunSummary", name: str) -> str:
        return render.format_share(run.best.validation[name]) if name in run.best.validation else "–"

    rows = [
        (
            str(run.folder),
            f"{run.dataset}{'' if run.split is None else f' split {run.split}'}",
            f"{run.num_epochs}/{run.wanted_epochs} {run.status}",
            f"{run.best.epoch}",
            share(run, "top1"),
            share(run, "video_top1"),
            f"{run.best.train_loss:.3f}",
            f"{run.last.clips_per_second:.1f}",
            render.format_share(run.last.waited_share),
            render.format_seconds(run.seconds),
        )
        for run in runs
    ]
    columns = ("run", "data", "epochs", "best", "top-1 held out", "of videos", "loss", "clips/s", "waiting", "time")
    render.print_table(columns, rows)
