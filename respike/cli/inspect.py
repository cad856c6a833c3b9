"""`respike inspect`: what a set of shards holds, in numbers and pictures."""

import shlex
from pathlib import Path
from typing import Any

import click

from respike.cli import completion, console, options
from respike.cli.options import PAGE, PICTURE, OutputFile
from respike.common.text import counted


@click.command(
    epilog="""\b
Examples:
  respike inspect shards/ucf101-split1
  respike inspect shards/ucf101-split1 --png sheet.png
  respike inspect shards/ucf101-split1 --html report.html
"""
)
@click.argument("shards", shell_complete=completion.data_sets)
@click.option("--png", type=OutputFile(PICTURE), metavar="FILE", help="Write a contact sheet of key frames and events.")
@click.option("--html", type=OutputFile(PAGE), metavar="FILE", help="Write numbers and contact sheet as one page.")
@options.overwrite
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(shards: str, png: Path | None, html: Path | None, as_json: bool) -> None:
    """Show what the SHARDS folder holds: videos, clips, classes, events, sizes, and what they look like.

    In the contact sheet red pixels are brighter than in the key frame, blue ones darker.
    """
    from respike.workflows.inspection import inspect_shards

    options.check_outputs(click.get_current_context())
    facts = inspect_shards(shards, png=png, html=html)
    if as_json:
        console.print_json(facts)
        return
    _print(facts)
    for path in filter(None, (png, html)):
        console.print_line(f"wrote {path}")
    if not png and not html:
        console.print_line(f"next: respike inspect {shlex.quote(shards)} --png sheet.png")


def _print(facts: dict[str, Any]) -> None:
    settings, videos, counts = facts["settings"], facts["videos"], facts["clips_a_class"]
    split = f", split {facts['split']}" if facts["split"] is not None else ""
    parts = {name: console.format_bytes(size) for name, size in facts["sizes"].items()}
    clip, frame = (console.format_bytes(facts[name]) for name in ("bytes_per_clip", "bytes_per_frame"))
    console.print_facts(
        {
            "data set": f"{facts['dataset']}{split}; scored on the subset {facts['evaluation_subset']}",
            "videos": f"{videos['written']:,} written, {videos['skipped']:,} skipped of {videos['listed']:,}",
            "classes": f"{facts['num_classes']:,}; clips a class: from {counts['min']:,} to {counts['max']:,}, "
            f"median {counts['median']:,}",
            "clips": f"{facts['num_clips']:,} of {counted(settings['clip_length'], 'frame')}, "
            f"stride {settings['stride']}, {settings['sampling']} sampling",
            "events": f"{console.format_share(facts['event_density'])} of the samples are not zero; "
            f"threshold {settings['threshold']}, {settings['color']}",
            "size": f"{console.format_bytes(facts['num_bytes'])}; {clip} a clip, {frame} a frame",
            "of a clip": f"key frames {parts['key_frames']}, events {parts['events']}, JSON {parts['json']}",
            "fingerprint": facts["fingerprint"][:16],
        }
    )
    rows = [
        (name, *(f"{part[what]:,}" for what in ("shards", "videos", "clips")), console.format_bytes(part["bytes"]))
        for name, part in facts["subsets"].items()
    ]
    console.print_table(("subset", "shards", "videos", "clips", "size"), rows)
