"""Finishing: finished-marks of all shards → the index beside them, and what a run has to say of itself."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from respike.data import index
from respike.data.building.plan import Mark, Part
from respike.data.building.tally import Speed
from respike.data.output import card
from respike.data.output.state import CARD_NAME
from respike.files import seal, write_if_changed


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a run left behind: `listed` = `written` + `skipped` videos, always.

    `num_bytes` and `num_clips` are those of all shards, also the ones found finished; `num_built` shards were made by
    this run in `seconds`, with a `speed` that speaks of those alone. `event_density` is the share of stored events that
    are not zero. `num_partial` of the written videos were damaged and kept up to the damage. With `part` all counts are
    those of that part.
    """

    out: Path | str
    listed: int
    written: int
    skipped: int
    num_clips: int
    num_shards: int
    num_built: int
    num_bytes: int
    event_density: float
    seconds: float
    skipped_videos: tuple[index.SkippedVideo, ...]
    num_partial: int = 0
    speed: Speed = field(default_factory=Speed)
    part: Part | None = None

    @property
    def skipped_path(self) -> str:
        """Where the skipped videos are named."""
        return f"{self.out}/{index.SKIPPED_NAME}"


def summarise(out: Path | str, marks: Sequence[Mark], part: Part | None = None) -> PrepareSummary:
    """Count what stands in the shards that `marks` promise."""
    rows, skipped, shards = _gather(marks)
    return PrepareSummary(
        out=out,
        listed=len(rows) + len(skipped),
        written=len(rows),
        skipped=len(skipped),
        num_clips=sum(shard["num_samples"] for shard in shards),
        num_shards=len(shards),
        num_built=0,
        num_bytes=sum(shard["num_bytes"] for shard in shards),
        event_density=_density(marks),
        seconds=0.0,
        skipped_videos=tuple(index.SkippedVideo(**row) for row in skipped),
        num_partial=sum("partial" in row for row in rows),
        part=part,
    )


def write_index(out: Path, head: Mapping[str, Any], settings: Mapping[str, Any], marks: Sequence[Mark]) -> None:
    """Write the index, the list of what was skipped and the card, for shards in the order of `marks`.

    `head` holds `format_version, dataset, split, classes, evaluation_subset, listed`. Files that stand there as they
    should are left.
    """
    rows, skipped, shards = _gather(marks)
    assert head["listed"] == len(rows) + len(skipped)
    videos_text, skipped_text = index.jsonl(rows), index.jsonl(skipped)
    content = {
        "format_version": head["format_version"],
        "dataset": head["dataset"],
        "split": head["split"],
        "evaluation_subset": head["evaluation_subset"],
        "classes": list(head["classes"]),
        "settings": dict(settings),
        "videos": {
            "listed": head["listed"],
            "written": len(rows),
            "skipped": len(skipped),
            "rows_sha256": hashlib.sha256(videos_text.encode("utf-8", "surrogateescape")).hexdigest(),
            "skipped_sha256": hashlib.sha256(skipped_text.encode("utf-8", "surrogateescape")).hexdigest(),
        },
        "num_clips": sum(shard["num_samples"] for shard in shards),
        "event_density": _density(marks),
        "shards": shards,
    }
    sealed = seal(content, indent=1)
    index_path = out / index.INDEX_NAME
    if index_path.exists() and index_path.read_bytes() != sealed.encode("utf-8", "surrogateescape"):
        # between an old index and new rows no reader could tell what is right
        index_path.unlink()
    write_if_changed(out / index.VIDEOS_NAME, videos_text)
    write_if_changed(out / index.SKIPPED_NAME, skipped_text)
    write_if_changed(out / CARD_NAME, card.dataset_card(content))
    # the index last: where it stands, everything it names stands
    write_if_changed(index_path, sealed)


def _gather(marks: Sequence[Mark]) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[dict[str, Any]]]:
    rows = [row for mark in marks for row in mark["videos"]]
    skipped = sorted((row for mark in marks for row in mark["skipped"]), key=lambda row: row["video"])
    return rows, skipped, [mark["shard"] for mark in marks if mark["shard"]]


def _density(marks: Sequence[Mark]) -> float:
    num_samples = sum(mark["num_event_samples"] for mark in marks)
    return round(sum(mark["num_events"] for mark in marks) / num_samples, 6) if num_samples else 0.0
