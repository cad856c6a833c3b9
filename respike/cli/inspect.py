"""`respike inspect`: what a set of shards holds, in numbers and pictures."""

import shlex
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion
from respike.cli.options import HTML, PNG, OutputFile, require_apart
from respike.common.errors import ShardError
from respike.common.text import counted

if TYPE_CHECKING:
    from respike.data import ShardDataset
    from respike.data.index import DatasetIndex

_SHEET_CLIPS = 6
_WEIGHED_CLIPS = 100


@click.command(
    epilog="""\b
Examples:
  respike inspect shards/ucf101-split1
  respike inspect shards/ucf101-split1 --png sheet.png
  respike inspect shards/ucf101-split1 --html report.html
"""
)
@click.argument("shards", shell_complete=completion.data_sets)
@click.option("--png", type=OutputFile(PNG), metavar="FILE", help="Write a contact sheet of key frames and events.")
@click.option("--html", type=OutputFile(HTML), metavar="FILE", help="Write numbers and contact sheet as one page.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(shards: str, png: Path | None, html: Path | None, as_json: bool) -> None:
    """Show what the SHARDS folder holds: videos, clips, classes, events, sizes, and how they look.

    Red pixels of the contact sheet grew brighter than in the key frame, blue ones darker.
    """
    from respike.cli import console
    from respike.data import open_shards

    require_apart(click.get_current_context())
    dataset = open_shards(shards)
    if not len(dataset):
        raise ShardError(
            f"{shards} holds no clip", f"see {Path(shards) / 'skipped.jsonl'} for what was skipped and why"
        )
    facts = gather_facts(dataset)
    if png or html:
        _draw(dataset, facts, shards, png, html)
    if as_json:
        console.print_json(facts)
        return
    _print(facts)
    for path in filter(None, (png, html)):
        console.print_line(f"wrote {path}")
    if not png and not html:
        console.print_line(f"next: respike inspect {shlex.quote(shards)} --png sheet.png")


def _draw(dataset: "ShardDataset", facts: dict[str, Any], shards: str, png: Path | None, html: Path | None) -> None:
    from respike.common.files import write_atomically
    from respike.workflows import clip_plots, plots
    from respike.workflows.pages import render_page

    picture = plots.figure_png(clip_plots.contact_sheet([dataset[number] for number in choose_clips(dataset)]))
    if png:
        write_atomically(png, picture)
    if html:
        title = Path(shards).name or shards
        write_atomically(html, render_page("inspect.html", title=title, facts=facts, picture=plots.inline_png(picture)))


def gather_facts(dataset: "ShardDataset") -> dict[str, Any]:
    """What the index says of a set of shards, and the mean weight of the parts of its samples.

    Sizes are in bytes, shares from 0 to 1. Nothing is hashed and no picture decoded.
    """
    index = dataset.index
    clips_by_class: dict[str, int] = dict.fromkeys(index.spec.classes, 0)
    for row in dataset.clips:
        clips_by_class[index.spec.classes[row.label]] += 1
    counts = sorted(clips_by_class.values())
    num_bytes = sum(shard.num_bytes for shard in index.shards)
    num_frames = index.num_clips * int(index.spec.settings["clip_length"])
    return {
        "dataset": index.spec.dataset,
        "split": index.spec.split,
        "evaluation_subset": index.spec.evaluation_subset,
        "settings": dict(index.spec.settings),
        "fingerprint": index.spec.fingerprint,
        "videos": {"listed": index.num_listed, "written": index.num_written, "skipped": index.num_skipped},
        "subsets": {subset: _count(index, subset) for subset in sorted({shard.subset for shard in index.shards})},
        "num_classes": len(index.spec.classes),
        "clips_a_class": {"min": counts[0], "median": statistics.median_low(counts), "max": counts[-1]},
        "clips_by_class": clips_by_class,
        "num_clips": index.num_clips,
        "event_density": index.event_density,
        "num_bytes": num_bytes,
        "bytes_per_clip": round(num_bytes / index.num_clips),
        "bytes_per_frame": round(num_bytes / num_frames),
        "sizes": _weigh(dataset),
    }


def _count(index: "DatasetIndex", subset: str) -> dict[str, int]:
    shards = [shard for shard in index.shards if shard.subset == subset]
    return {
        "shards": len(shards),
        "videos": sum(video.subset == subset for video in index.videos),
        "clips": sum(shard.num_samples for shard in shards),
        "bytes": sum(shard.num_bytes for shard in shards),
    }


def _weigh(dataset: "ShardDataset") -> dict[str, int]:
    """Mean bytes a clip of key frames, events and JSON, from up to a hundred clips spread over the set."""
    step = -(-len(dataset) // _WEIGHED_CLIPS)
    numbers = range(0, len(dataset), step)
    totals = {"key_frames": 0, "events": 0, "json": 0}
    for number in numbers:
        for name, size in dataset.member_sizes(number).items():
            totals["key_frames" if name.endswith(".jpg") else name] += size
    return {name: round(total / len(numbers)) for name, total in totals.items()}


def choose_clips(dataset: "ShardDataset", most: int = _SHEET_CLIPS) -> list[int]:
    """Numbers of at most `most` clips of different classes, spread over them, each from the middle of its class."""
    by_label: dict[int, list[int]] = {}
    for number, row in enumerate(dataset.clips):
        by_label.setdefault(row.label, []).append(number)
    labels = sorted(by_label)
    num_shown = min(most, len(labels))
    chosen = [labels[place * len(labels) // num_shown] for place in range(num_shown)]
    return [by_label[label][len(by_label[label]) // 2] for label in chosen]


def _print(facts: dict[str, Any]) -> None:
    from respike.cli import console

    settings, videos, counts = facts["settings"], facts["videos"], facts["clips_a_class"]
    split = f", split {facts['split']}" if facts["split"] is not None else ""
    frames = counted(settings["clip_length"], "frame")
    parts = {name: console.format_bytes(size) for name, size in facts["sizes"].items()}
    clip, frame = (console.format_bytes(facts[name]) for name in ("bytes_per_clip", "bytes_per_frame"))
    console.print_facts(
        {
            "data set": f"{facts['dataset']}{split}; scores are made on {facts['evaluation_subset']}",
            "videos": f"{videos['written']:,} written, {videos['skipped']:,} skipped of {videos['listed']:,}",
            "classes": f"{facts['num_classes']:,}, of {counts['min']:,} to {counted(counts['max'], 'clip')}, "
            f"median {counts['median']:,}",
            "clips": f"{facts['num_clips']:,} of {frames}, stride {settings['stride']}, "
            f"{settings['sampling']} sampling",
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
