"""Inspection workflow: what a set of shards holds, in numbers, as a contact sheet and as a page."""

import statistics
from pathlib import Path
from typing import Any

from respike.common.errors import ShardError
from respike.common.files import write_atomically
from respike.data import ShardDataset, open_shards
from respike.data.index import DatasetIndex
from respike.workflows import plots
from respike.workflows.clip_plots import contact_sheet
from respike.workflows.pages import render_page

# clips whose parts are measured: reading all of Kinetics would take hours
_MAX_MEASURED_CLIPS = 100


def inspect_shards(
    shards: str | Path, *, png: Path | None = None, html: Path | None = None, max_sheet_clips: int = 6
) -> dict[str, Any]:
    """Return what a set of shards holds as plain values; optionally write a contact sheet and a page.

    Sizes are in bytes, shares from 0 to 1. `sizes` are means over up to 100 clips, everything else is from the index:
    no checksum is computed. `png` gets a contact sheet of up to `max_sheet_clips` clips of different classes, `html` a
    page with the numbers and that sheet. Raises ShardError if the shards hold no clip.
    """
    dataset = open_shards(shards)
    if not len(dataset):
        raise ShardError(
            f"{shards} holds no clip", f"see {Path(shards) / 'skipped.jsonl'} for what was skipped and why"
        )
    facts = _gather_facts(dataset)
    if png is not None or html is not None:
        clips = [dataset[number] for number in choose_clips(dataset, max_sheet_clips)]
        picture = plots.figure_png(contact_sheet(clips))
        if png is not None:
            write_atomically(png, picture)
        if html is not None:
            title = Path(shards).name or str(shards)
            page = render_page("inspect.html", title=title, facts=facts, picture=plots.inline_png(picture))
            write_atomically(html, page)
    return facts


def choose_clips(dataset: ShardDataset, max_clips: int) -> list[int]:
    """Return the numbers of up to `max_clips` clips: of classes spread evenly, each from the middle of its class."""
    by_label: dict[int, list[int]] = {}
    for number, row in enumerate(dataset.clips):
        by_label.setdefault(row.label, []).append(number)
    labels = sorted(by_label)
    num_chosen = min(max_clips, len(labels))
    chosen = [labels[position * len(labels) // num_chosen] for position in range(num_chosen)]
    return [by_label[label][len(by_label[label]) // 2] for label in chosen]


def _gather_facts(dataset: ShardDataset) -> dict[str, Any]:
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
        "sizes": _measure_parts(dataset),
    }


def _count(index: DatasetIndex, subset: str) -> dict[str, int]:
    shards = [shard for shard in index.shards if shard.subset == subset]
    return {
        "shards": len(shards),
        "videos": sum(video.subset == subset for video in index.videos),
        "clips": sum(shard.num_samples for shard in shards),
        "bytes": sum(shard.num_bytes for shard in shards),
    }


def _measure_parts(dataset: ShardDataset) -> dict[str, int]:
    """Return the mean bytes a clip of key frames, events and JSON, over clips spread evenly."""
    step = -(-len(dataset) // _MAX_MEASURED_CLIPS)
    numbers = range(0, len(dataset), step)
    totals = {"key_frames": 0, "events": 0, "json": 0}
    for number in numbers:
        for name, size in dataset.member_sizes(number).items():
            totals["key_frames" if name.endswith(".jpg") else name] += size
    return {name: round(total / len(numbers)) for name, total in totals.items()}
