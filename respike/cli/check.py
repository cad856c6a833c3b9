"""`respike check`: raw videos looked through before anything is written."""

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import options
from respike.errors import RespikeError
from respike.wording import agree, counted

if TYPE_CHECKING:
    from respike.data.check import CheckReport
    from respike.sample import VideoListing

_SHOWN_VIDEOS = 5
_SHOWN_CLASSES = 10


@click.command(
    epilog="""\b
Examples:
  respike check ucf101
  respike check kinetics400 --root /data/k400 --report faults.jsonl
  respike check folder --root videos --list labels.csv --full --strict
"""
)
@click.argument("dataset", type=options.DatasetChoice(), metavar="DATASET")
@click.option("--root", type=click.Path(path_type=Path), help="Where the videos lie.  [default: data/DATASET]")
@click.option(
    "--list", "list_path", type=click.Path(path_type=Path), help="folder: CSV or JSONL of path,label[,subset]."
)
@click.option("--split", type=int, help="Which official split.  [default: 1 where there are splits]")
@options.follow_symlinks
@click.option("--full", is_flag=True, help="Decode every video whole instead of opening it: finds what is cut within.")
@click.option("--report", type=click.Path(path_type=Path), help="Write what is wrong as JSONL of video, stage, reason.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--strict", is_flag=True, help="Exit 1 if a video is missing or cannot be read.")
@click.option("--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(
    dataset: str,
    root: Path | None,
    list_path: Path | None,
    split: int | None,
    follow_symlinks: bool,
    full: bool,
    report: Path | None,
    workers: int | None,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Tell which videos of DATASET are listed, present, missing and unreadable, and of which classes.

    No shard is written. What is missing or unreadable here is what `respike prepare` would skip; without --full a
    video counts as readable if its header is.
    """
    from respike.cli import render
    from respike.data import check as core
    from respike.data.layouts import LAYOUTS, ListingRequest

    if list_path is not None and dataset != "folder":
        raise click.UsageError(f"--list goes with `folder`; {dataset} has lists of its own")
    request = ListingRequest(
        root=root or Path("data") / dataset, split=split, list_path=list_path, follow_symlinks=follow_symlinks
    )
    progress = render.make_progress(quiet=quiet, json=as_json)
    listing = LAYOUTS.get(dataset).list_videos(request)
    for warning in listing.warnings:
        progress.warn(warning)
    found = core.check(listing, full=full, num_workers=workers or os.cpu_count() or 1, progress=progress)
    if report is not None:
        core.write_report(found, report)
    if as_json:
        render.print_json(gather_facts(listing, found, full=full, report=report))
    elif not quiet:
        arguments = _arguments(dataset, root, list_path, split, follow_symlinks)
        _print(found, full=full, report=report, arguments=arguments)
    if strict and found.faults:
        raise RespikeError(
            f"of {counted(found.listed, 'video')} {found.missing:,} {agree(found.missing, 'is', 'are')} missing and "
            f"{found.unreadable:,} cannot be read, "
            "and --strict was given",
            f"they are named in {report}" if report else "name them with --report FILE",
        )


def gather_facts(listing: "VideoListing", found: "CheckReport", *, full: bool, report: Path | None) -> dict[str, Any]:
    """What was found, as `--json` prints it; the videos themselves go to --report."""
    return {
        "dataset": listing.dataset,
        "split": listing.split,
        "listed": found.listed,
        "present": found.present,
        "missing": found.missing,
        "unreadable": found.unreadable,
        "decoded": full,
        "classes": [asdict(count) for count in found.classes],
        "report": None if report is None else str(report),
        "seconds": round(found.seconds, 3),
        "warnings": list(listing.warnings),
    }


def _arguments(
    dataset: str, root: Path | None, list_path: Path | None, split: int | None, follow_symlinks: bool
) -> str:
    """The arguments that name the same videos to `respike prepare`."""
    given = {"--root": root, "--list": list_path, "--split": split}
    parts = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    return shlex.join([dataset, *parts, *([] if follow_symlinks else ["--no-follow-symlinks"])])


def _print(found: "CheckReport", *, full: bool, report: Path | None, arguments: str) -> None:
    from respike.cli import render

    whole = "decode whole" if full else "open; --full decodes them"
    render.print_facts(
        {
            "listed": f"{counted(found.listed, 'video')} in {counted(len(found.classes), 'class')}",
            "present": f"{found.present:,}, of which {found.present - found.unreadable:,} {whole}",
            "missing": f"{found.missing:,}",
            "unreadable": f"{found.unreadable:,}",
            "time": render.format_seconds(found.seconds),
        }
    )
    worst = sorted(found.classes, key=lambda count: (-count.missing - count.unreadable, count.name))
    worst = [count for count in worst if count.missing or count.unreadable]
    if worst:
        rows = [(count.name, *(f"{n:,}" for n in (count.listed, count.missing, count.unreadable))) for count in worst]
        render.print_table(("class", "listed", "missing", "unreadable"), rows[:_SHOWN_CLASSES])
        if (num_more := len(rows) - _SHOWN_CLASSES) > 0:
            render.print_line(f"and {counted(num_more, 'more class')} with videos missing or unreadable")
    for fault in found.faults[:_SHOWN_VIDEOS]:
        render.print_line(f"{fault.video}: {fault.stage}: {fault.reason}")
    if (num_more := len(found.faults) - _SHOWN_VIDEOS) > 0:
        where = f"named in {report}" if report else "--report FILE names them"
        render.print_line(f"and {num_more:,} more; {where}")
    render.print_line(f"next: respike prepare {arguments}")
