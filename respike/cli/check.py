"""`respike check`: raw videos looked through before anything is written."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import options
from respike.cli.options import FAULTS, OutputFile, require_apart
from respike.common.errors import RespikeError
from respike.common.processes import usable_cpus
from respike.common.text import agree, counted

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
@options.video_choice
@click.option("--full", is_flag=True, help="Decode every video whole instead of opening it: finds what is cut within.")
@click.option(
    "--report", type=OutputFile(FAULTS), metavar="FILE", help="Write what is wrong as JSONL of video, subset, …"
)
@options.workers
@click.option("--strict", is_flag=True, help="Exit 1 if a video is missing or cannot be read.")
@options.quiet
@options.as_json
def command(
    videos: options.VideoChoice,
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
    from respike.cli import console
    from respike.data import video_check as core

    require_apart(click.get_current_context())
    progress = console.make_progress(quiet=quiet, json=as_json)
    listing = videos.layout.list_videos(videos.request())
    for warning in listing.warnings:
        progress.warn(warning)
    found = core.check(listing, full=full, num_workers=workers or usable_cpus(), progress=progress)
    if report is not None:
        core.write_report(found, report)
    if as_json:
        console.print_json(gather_facts(listing, found, full=full, report=report))
    elif not quiet:
        _print(found, full=full, report=report, arguments=videos.to_arguments())
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


def _print(found: "CheckReport", *, full: bool, report: Path | None, arguments: str) -> None:
    from respike.cli import console

    whole = "decode whole" if full else "open; --full decodes them"
    console.print_facts(
        {
            "listed": f"{counted(found.listed, 'video')} in {counted(len(found.classes), 'class')}",
            "present": f"{found.present:,}, of which {found.present - found.unreadable:,} {whole}",
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
            console.print_line(f"and {counted(num_more, 'more class')} with videos missing or unreadable")
    for fault in found.faults[:_SHOWN_VIDEOS]:
        console.print_line(f"{fault.video}: {fault.stage}: {fault.reason}")
    if (num_more := len(found.faults) - _SHOWN_VIDEOS) > 0:
        where = f"named in {report}" if report else "--report FILE names them"
        console.print_line(f"and {num_more:,} more; {where}")
    console.print_line(f"next: respike prepare {arguments}")
