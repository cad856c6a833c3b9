"""`respike verify`: shards compared with their index; damaged ones are named, and with --repair removed."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion, console
from respike.common.errors import RespikeError
from respike.common.processes import usable_cpus
from respike.common.text import counted, name_some

if TYPE_CHECKING:
    from respike.data.verification import VerifyReport


@click.command(
    epilog="""\b
Examples:
  respike verify shards/ucf101-split1
  respike verify shards/ucf101-split1 --quick
  respike verify shards/ucf101-split1 --repair
"""
)
@click.argument("out", metavar="OUT", shell_complete=completion.data_sets)
@click.option(
    "--repair", is_flag=True, help="Remove damaged shards, so that the next `respike prepare` makes only those again."
)
@click.option("--quick", is_flag=True, help="Only hash every file; decode no sample.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--quiet", is_flag=True, help="Print only faults.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_context
def command(
    context: click.Context, out: str, repair: bool, quick: bool, workers: int | None, quiet: bool, as_json: bool
) -> None:
    """Compare the shards in the folder OUT with their index, and every sample with its row.

    Prints a line for each file that is damaged, missing or not part of the set, and exits 1 if there is one.
    """
    from respike.common.storage import is_address
    from respike.data import verification as core

    if is_address(out):
        raise RespikeError(
            f"{out} is an address, and verify reads folders of this machine",
            "copy it here and verify the copy; shards that are read from an address are compared with their checksums",
        )
    look = core.repair if repair else core.verify
    progress = console.make_progress(quiet=quiet, json=as_json)
    report = look(Path(out), quick=quick, num_workers=workers or usable_cpus(), progress=progress)
    if as_json:
        console.print_json(gather_facts(report, quick=quick))
    else:
        _print(report, quick=quick, quiet=quiet)
    if report.faults:
        context.exit(1)


def gather_facts(report: "VerifyReport", *, quick: bool) -> dict[str, Any]:
    """Return what was found, as `--json` prints it."""
    return {
        "out": str(report.out),
        "whole": not report.faults,
        "faults": [{"file": fault.file, "problem": fault.problem} for fault in report.faults],
        "strays": list(report.strays),
        "dropped": list(report.dropped),
        "decoded": not quick,
        "num_shards": report.num_shards,
        "num_clips": report.num_clips,
        "num_bytes": report.num_bytes,
        "seconds": round(report.seconds, 3),
    }


def _print(report: "VerifyReport", *, quick: bool, quiet: bool) -> None:
    for fault in report.faults:
        console.print_line(str(fault))
    if quiet:
        return
    if report.strays:
        console.print_line(f"not part of the set, and harmless: {name_some(report.strays)}")
    for name in report.dropped:
        console.print_line(f"dropped {name}")
    if not report.faults:
        how = "hashed" if quick else "hashed and decoded"
        console.print_line(
            f"whole: {counted(report.num_clips, 'clip')} in {counted(report.num_shards, 'shard')}, "
            f"{console.format_bytes(report.num_bytes)}, {how} in {console.format_seconds(report.seconds)}"
        )
        console.print_line(f"next: respike inspect {shlex.quote(str(report.out))}")
    elif report.dropped:
        # without an index no shard was checked
        again = "" if report.num_shards else ", then `respike verify` again"
        console.print_line(
            f"next: the same `respike prepare` as before: it makes what was dropped and keeps the rest{again}"
        )
    elif any(not fault.is_unknown_shard for fault in report.faults):
        console.print_line(f"next: respike verify {shlex.quote(str(report.out))} --repair")
    else:
        console.print_line("next: remove these files from the folder, or prepare the data again")
