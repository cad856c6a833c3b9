"""`respike inspect`: what a set of shards holds, in numbers and pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from respike.data import ShardDataset

_SHEET_CLIPS = 6


@click.command(
    epilog="""\b
Examples:
  respike inspect shards/ucf101-split1
  respike inspect shards/ucf101-split1 --png sheet.png
  respike inspect shards/ucf101-split1 --html report.html
"""
)
@click.argument("shards")
@click.option("--png", type=click.Path(path_type=Path), help="Write a contact sheet of key frames and events.")
@click.option("--html", type=click.Path(path_type=Path), help="Write numbers and contact sheet as one page.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(shards: str, png: Path | None, html: Path | None, as_json: bool) -> None:
    """Show what the SHARDS folder holds: videos, clips, classes, events, sizes, and how they look."""
    from respike.cli import render
    from respike.data import open_shards

    dataset = open_shards(shards)
    facts = gather_facts(dataset)
    if png or html:
        from respike.cli import sheet

        figure = sheet.draw_sheet([dataset[number] for number in _choose(dataset)])
        if png:
            sheet.save_figure(figure, png)
        if html:
            _write_page(html, shards, facts, sheet.inline_png(sheet.figure_png(figure)))
    if as_json:
        render.print_json(facts)
    else:
        _print(facts)
        for path in filter(None, (png, html)):
            render.print_line(f"wrote {path}")


def gather_facts(dataset: "ShardDataset") -> dict[str, Any]:
    """What the index says of a set of shards, and what one sample of each shard weighs."""
    index = dataset.index
    clips_by_class: dict[str, int] = dict.fromkeys(index.spec.classes, 0)
    for row in dataset.clips:
        clips_by_class[index.spec.classes[row.label]] += 1
    subsets = {
        subset: {
            "shards": len(shards := [shard for shard in index.shards if shard.subset == subset]),
            "videos": sum(video.subset == subset for video in index.videos),
            "clips": sum(shard.num_samples for shard in shards),
            "bytes": sum(shard.num_bytes for shard in shards),
        }
        for subset in sorted({shard.subset for shard in index.shards})
    }
    num_bytes = sum(shard.num_bytes for shard in index.shards)
    num_frames = index.num_clips * int(index.spec.settings["clip_length"])
    return {
        "dataset": index.spec.dataset,
        "split": index.spec.split,
        "settings": dict(index.spec.settings),
        "fingerprint": index.spec.fingerprint,
        "videos": {"listed": index.num_listed, "written": index.num_written, "skipped": index.num_skipped},
        "subsets": subsets,
        "num_classes": len(index.spec.classes),
        "clips_by_class": clips_by_class,
        "num_clips": index.num_clips,
        "event_density": index.event_density,
        "num_bytes": num_bytes,
        "bytes_per_clip": round(num_bytes / max(1, index.num_clips)),
        "bytes_per_frame": round(num_bytes / max(1, num_frames)),
        "sizes": _weigh(dataset),
    }


def _weigh(dataset: "ShardDataset") -> dict[str, int]:
    """Mean bytes a clip of key frames, events and JSON, from up to a hundred clips spread over the set."""
    step = max(1, len(dataset) // 100)
    weights = [dataset.member_sizes(number) for number in range(0, len(dataset), step)]
    totals = {"key_frames": 0, "events": 0, "json": 0}
    for sizes in weights:
        for name, size in sizes.items():
            totals["key_frames" if name.endswith(".jpg") else name] += size
    return {name: round(total / max(1, len(weights))) for name, total in totals.items()}


def _choose(dataset: "ShardDataset") -> list[int]:
    """Clips of different classes, spread over them, each from the middle of a video."""
    by_label: dict[int, list[int]] = {}
    for number, row in enumerate(dataset.clips):
        by_label.setdefault(row.label, []).append(number)
    labels = sorted(by_label)
    step = max(1, len(labels) // _SHEET_CLIPS)
    chosen = [by_label[label][len(by_label[label]) // 2] for label in labels[::step]]
    return chosen[:_SHEET_CLIPS]


def _print(facts: dict[str, Any]) -> None:
    from respike.cli import render

    settings, videos = facts["settings"], facts["videos"]
    counts = sorted(facts["clips_by_class"].values())
    render.print_facts(
        {
            "data set": facts["dataset"] + (f", split {facts['split']}" if facts["split"] else ""),
            "videos": f"{videos['written']:,} written, {videos['skipped']:,} skipped of {videos['listed']:,}",
            "classes": f"{facts['num_classes']}; clips a class {counts[0]} – {counts[-1]}, "
            f"median {counts[len(counts) // 2]}",
            "clips": f"{facts['num_clips']:,} of {settings['clip_length']} frames, stride {settings['stride']}",
            "events": f"θ {settings['threshold']}, {settings['color']}, "
            f"{render.format_share(facts['event_density'])} not zero",
            "size": f"{render.format_bytes(facts['num_bytes'])}; {render.format_bytes(facts['bytes_per_clip'])} a clip "
            f"(key frames {render.format_bytes(facts['sizes']['key_frames'])}, "
            f"events {render.format_bytes(facts['sizes']['events'])}), "
            f"{render.format_bytes(facts['bytes_per_frame'])} a frame",
            "fingerprint": facts["fingerprint"][:16],
        }
    )
    render.print_table(
        ("subset", "shards", "videos", "clips", "bytes"),
        [
            (name, part["shards"], f"{part['videos']:,}", f"{part['clips']:,}", render.format_bytes(part["bytes"]))
            for name, part in facts["subsets"].items()
        ],
    )


def _write_page(path: Path, shards: str, facts: dict[str, Any], picture: str) -> None:
    from respike.cli.pages import render_page
    from respike.files import write_atomically

    write_atomically(path, render_page("inspect.html", title=Path(shards).name or shards, facts=facts, picture=picture))
