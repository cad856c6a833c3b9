"""`respike check`: raw videos listed and read before anything is written."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import console, options
from respike.cli.options import OutputFile, check_outputs
from respike.cli.prepare import spell_options
from respike.common.errors import RespikeError
from respike.common.text import counted

if TYPE_CHECKING:
    from respike.data.video_check import CheckReport
    from respike.types import VideoListing

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
@options.video_options
@click.option("--full", is_flag=True, help="Decode every video to its end instead of only opening it.")
@click.option("--report", type=OutputFile(), metavar="FILE", help="Write the faults as JSONL of video, subset, …")
@options.overwrite
@options.workers
@click.option("--strict", is_flag=True, help="Exit 1 if a video is missing or cannot be read.")
@options.quiet
@options.as_json
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
    """Count the videos of DATASET that are listed, present, missing and unreadable, class by class.

    No shard is written. `respike prepare` would skip the videos that are missing or unreadable here. Without --full a
    video counts as readable if its header can be read.
    """
    from respike.data.video_check import write_report
    from respike.workflows.preparation import UnusedSettingError, check_videos

    check_outputs(click.get_current_context())
    try:
        listing, found = check_videos(
            dataset,
            root,
            split=split,
            list_path=list_path,
            follow_symlinks=follow_symlinks,
            full=full,
            workers=workers,
            progress=console.make_progress(quiet=quiet, json=as_json),
        )
    except UnusedSettingError as error:
        raise spell_options(error) from error
    if report is not None:
        write_report(found, report)
    if as_json:
        console.print_json(gather_facts(listing, found, full=full, report=report))
    elif not quiet:
        given = {"--root": root, "--list": list_path, "--split": split}
        words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
        words += [] if follow_symlinks else ["--no-follow-symlinks"]
        _print(found, full=full, report=report, arguments=shlex.join([dataset, *words]))
    if strict and found.faults:
        raise RespikeError(
            f"videos listed: {found.listed:,}, missing: {found.missing:,}, unreadable: {found.unreadable:,}; "
            "--strict was given",
            f"they are named in {report}" if report else "use --report FILE to get their names",
        )


def gather_facts(listing: "VideoListing", found: "CheckReport", *, full: bool, report: Path | None) -> dict[str, Any]:
    """Return what was found, as `--json` prints it; the videos themselves go to --report."""
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


def _print(found: "CheckReport", *, full: bool, report: Path | None, arguments: str) -> None:
    readable = "can be decoded" if full else "can be opened; --full decodes them"
    console.print_facts(
        {
            "listed": f"{counted(found.listed, 'video')} in {counted(len(found.classes), 'class')}",
            "present": f"{found.present:,}, of which {found.present - found.unreadable:,} {readable}",
            "missing": f"{found.missing:,}",
            "unreadable": f"{found.unreadable:,}",
            "time": console.format_seconds(found.seconds),
        }
    )
    worst = sorted(found.classes, key=lambda count: (-count.missing - count.unreadable, count.name))
    worst = [count for count in worst if count.missing or count.unreadable]
    if worst:
        rows = [(count.name, *(f"{n:,}" for n in (count.listed, count.missing, count.unreadable))) for count in worst]
        console.print_table(("class", "listed", "missing", "unreadable"), rows[:_SHOWN_CLASSES])
        if (num_more := len(rows) - _SHOWN_CLASSES) > 0:
            console.print_line(f"more classes with videos missing or unreadable: {num_more:,}")
    for fault in found.faults[:_SHOWN_VIDEOS]:
        console.print_line(f"{fault.video}: {fault.stage}: {fault.reason}")
    if (num_more := len(found.faults) - _SHOWN_VIDEOS) > 0:
        where = f"named in {report}" if report else "--report FILE names them"
        console.print_line(f"and {num_more:,} more; {where}")
    console.print_line(f"next: respike prepare {arguments}")
