"""`respike runs`: a list of the trainings on disk, or some of them side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli import console
from respike.common.errors import RespikeError
from respike.common.files import RUNS_ROOT

if TYPE_CHECKING:
    from respike.zoo.run_folder import RunSummary

# a longer value leaves no room for the other runs; --json prints it whole
_MOST_LETTERS = 24


@click.command(
    epilog="""\b
Examples:
  respike runs
  respike runs runs/a runs/b
  respike runs --root demo/runs --json
"""
)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--root", type=click.Path(path_type=Path), default=RUNS_ROOT, show_default=True, help="Folder of the runs."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(folders: tuple[Path, ...], root: Path, as_json: bool) -> None:
    """List the runs under --root; with FOLDERS, only those, and where their settings, networks and data differ.

    A run is done, running, stopped (`respike train --resume` continues it) or ended with nothing saved.
    """
    from respike.zoo.run_folder import find_runs
    from respike.zoo.run_request import summarise_request

    found = list(folders) or find_runs(root)
    if not found:
        raise RespikeError(
            f"there is no run under {root}/", "train one with `respike train`, or name another folder with --root"
        )
    runs = []
    for folder in found:
        try:
            runs.append(summarise_request(folder))
        except RespikeError as error:
            # one damaged run must not hide the others
            if folders:
                raise
            console.print_error(f"left out: {error.problem}", error.hint, as_json=as_json)
    if as_json:
        console.print_json([run.to_json() for run in runs])
        return
    _print_runs(runs)
    if len(folders) > 1:
        _print_differences(runs)


def _print_differences(runs: "list[RunSummary]") -> None:
    from respike.zoo.run_folder import differing_settings

    rows = [(name, *map(_shorten, values)) for name, values in differing_settings(runs).items()]
    if rows:
        console.print_table(("setting", *(run.folder.name for run in runs)), rows, title="where they differ")
    else:
        console.print_line("their settings, networks and data are the same")


def _shorten(value: object) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"


def _print_runs(runs: "list[RunSummary]") -> None:
    columns = ("run", "data", "shards", "epochs", "best", "top-1 held out", "of videos", "loss", "clips/s", "waiting")
    console.print_table((*columns, "time"), map(_row, runs))


def _row(run: "RunSummary") -> tuple[str, ...]:
    words = {"running": f"running on {run.host}", "ended": "ended, nothing saved"}
    data = run.dataset if run.split is None else f"{run.dataset} split {run.split}"
    epochs = f"{run.num_epochs}/{run.wanted_epochs} {words.get(run.status, run.status)}"
    cells = (str(run.folder), data, run.fingerprint[:8], epochs)
    if run.best is None or run.last is None:
        return (*cells, *["–"] * 7)
    scores = [run.best.validation.get(name) for name in ("top1", "video_top1")]
    return (
        *cells,
        f"{run.best.epoch}",
        *("–" if share is None else console.format_share(share) for share in scores),
        f"{run.best.train_loss:.3f}",
        f"{run.last.clips_per_second:.1f}",
        console.format_share(run.last.waited_share),
        console.format_seconds(run.seconds),
    )
