"""Prepare: plan shards by videos, skip finished ones, run the engine, write the index last."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from respike.data import card, index
from respike.data.build import ShardTask, SkippedVideo, build_shard
from respike.data.engines import local
from respike.data.format import FORMAT_VERSION
from respike.data.settings import PrepareSettings
from respike.errors import MismatchError, RespikeError
from respike.files import canonical_json, folder_lock, write_atomically
from respike.progress import SILENCE, Progress
from respike.sample import VideoListing, VideoRef

__all__ = ["PrepareSettings", "PrepareSummary", "SkippedVideo", "plan_shards", "prepare"]

STATE_FOLDER = ".respike"


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a run left behind: `listed` = `written` + `skipped` videos, always.

    `num_bytes` and `num_clips` are those of all shards, also the ones found finished; `num_built` shards were made by
    this run in `seconds`. `event_density` is the share of stored events that are not zero.
    """

    out: Path
    listed: int
    written: int
    skipped: int
    num_clips: int
    num_shards: int
    num_built: int
    num_bytes: int
    event_density: float
    seconds: float
    skipped_videos: tuple[SkippedVideo, ...]


def prepare(
    listing: VideoListing,
    out: Path,
    settings: PrepareSettings,
    *,
    num_workers: int | None = None,
    strict: bool = False,
    progress: Progress = SILENCE,
) -> PrepareSummary:
    """Turn the listed videos into shards under `out`, with an index beside them.

    Finished shards whose settings and source files are unchanged are kept. Unreadable videos are skipped and
    recorded; with `strict` they are an error once all else is written. The bytes depend on the input and the
    settings alone, not on `num_workers` (None: one a core).

    Raises MismatchError where `out` was made with other settings or classes, RespikeError where another run is at
    work there, nothing could be read, or the disk refuses.
    """
    started = time.perf_counter()
    for warning in listing.warnings:
        progress.warn(warning)
    state = _make_folder(out)
    with folder_lock(state / "lock", "respike prepare"):
        _check_same(state / "settings.json", listing, settings)
        tasks = plan_shards(listing, out, settings)
        marks = {task.name: mark for task in tasks if (mark := _finished(task)) is not None}
        missing = [task for task in tasks if task.name not in marks]
        if len(missing) < len(tasks):
            progress.say(f"{len(tasks) - len(missing)} of {len(tasks)} shards are finished and kept")
        # the old index promises shards that are about to change; without it no reader mixes old and new
        if missing:
            (out / index.INDEX_NAME).unlink(missing_ok=True)
        marks |= _build(missing, num_workers or os.cpu_count() or 1, progress)
        ordered = [marks[task.name] for task in tasks]
        _drop_strangers(out, state, {task.name for task in tasks})
        summary = _write_index(listing, out, settings, ordered, time.perf_counter() - started, len(missing))
    _judge(summary, strict)
    return summary


def plan_shards(listing: VideoListing, out: Path, settings: PrepareSettings) -> list[ShardTask]:
    """Decide which videos stand in which shard, before anything is decoded.

    Within a subset the videos are permuted with the seed, so that a shard does not hold one class, and cut into
    shards of `videos_per_shard`. A video that turns out unreadable leaves a hole; nothing else moves.
    """
    tasks = []
    for subset in sorted({video.subset for video in listing.videos}):
        videos = [video for video in listing.videos if video.subset == subset]
        order = np.random.default_rng([settings.seed, len(videos)]).permutation(len(videos))
        for number, first in enumerate(range(0, len(videos), settings.videos_per_shard)):
            members = tuple(videos[place] for place in order[first : first + settings.videos_per_shard])
            name = f"{subset}-{number:06d}.tar"
            tasks.append(
                ShardTask(
                    name=name,
                    subset=subset,
                    training=subset == "train",
                    videos=members,
                    settings=settings,
                    path=out / name,
                    mark_path=out / STATE_FOLDER / "done" / f"{name}.json",
                    fingerprint=_fingerprint(members, settings),
                )
            )
    return tasks


def _fingerprint(videos: Sequence[VideoRef], settings: PrepareSettings) -> str:
    """Changes with the settings, the membership, and the size or time of any source file."""
    rows = []
    for video in videos:
        source: list[int] | None = None
        if video.path is not None and video.path.exists():
            status = video.path.stat()
            source = [status.st_size, status.st_mtime_ns]
        rows.append([video.video_id, video.label, video.class_name, video.subset, video.group, source])
    content = canonical_json([FORMAT_VERSION, settings.to_json(), rows])
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _make_folder(out: Path) -> Path:
    state = out / STATE_FOLDER
    try:
        (state / "done").mkdir(parents=True, exist_ok=True)
        # found before an hour of decoding, not after
        write_atomically(state / "writable", "")
    except OSError as error:
        raise RespikeError(f"cannot write to {out}: {error.strerror}", "choose another --out") from error
    return state


def _check_same(path: Path, listing: VideoListing, settings: PrepareSettings) -> None:
    """Refuse to mix two kinds of shards in one folder."""
    # through JSON and back, so that what was read compares equal to what would be written
    now = json.loads(
        canonical_json(
            {"dataset": listing.dataset, "split": listing.split, "classes": listing.classes} | settings.to_json()
        )
    )
    if path.is_file():
        before = json.loads(path.read_text())
        if changed := sorted(name for name in now if before.get(name) != now[name]):
            what = ", ".join(
                name if name == "classes" else f"{name} {before.get(name)} → {now[name]}" for name in changed
            )
            raise MismatchError(
                f"{path.parent.parent} was prepared with other settings: {what}",
                "give another --out, or delete that folder",
            )
    else:
        write_atomically(path, canonical_json(now))


def _finished(task: ShardTask) -> dict[str, Any] | None:
    """The finished-mark of a shard, if it still speaks of the same videos and the shard's size is right."""
    try:
        mark: dict[str, Any] = json.loads(task.mark_path.read_text())
        if mark["fingerprint"] != task.fingerprint:
            return None
        if mark["shard"] is not None and task.path.stat().st_size != mark["shard"]["num_bytes"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark


def _build(tasks: list[ShardTask], num_workers: int, progress: Progress) -> dict[str, dict[str, Any]]:
    marks: dict[str, dict[str, Any]] = {}
    num_videos = sum(len(task.videos) for task in tasks)
    num_clips = num_skipped = 0
    with progress.task("prepare", total=num_videos, unit="videos") as task:
        for number, mark in local.run(build_shard, tasks, num_workers, lambda worker, note: task.advance()):
            marks[tasks[number].name] = mark
            num_clips += mark["shard"]["num_samples"] if mark["shard"] else 0
            num_skipped += len(mark["skipped"])
            task.advance(0, clips=num_clips, skipped=num_skipped)
    return marks


def _drop_strangers(out: Path, state: Path, names: set[str]) -> None:
    """Remove what an earlier plan left: its shards, marks, and temporary files of killed workers."""
    for mark in (state / "done").iterdir():
        name = mark.name.removesuffix(".json")
        if name not in names:
            (out / name).unlink(missing_ok=True)
            mark.unlink()
    for leftover in [*out.glob(".*.tmp"), *(state / "done").glob(".*.tmp")]:
        leftover.unlink(missing_ok=True)


def _write_index(
    listing: VideoListing,
    out: Path,
    settings: PrepareSettings,
    marks: list[dict[str, Any]],
    seconds: float,
    num_built: int,
) -> PrepareSummary:
    rows = [row for mark in marks for row in mark["videos"]]
    skipped = sorted((row for mark in marks for row in mark["skipped"]), key=lambda row: row["video"])
    shards = [mark["shard"] for mark in marks if mark["shard"]]
    num_samples = sum(mark["num_event_samples"] for mark in marks)
    density = round(sum(mark["num_events"] for mark in marks) / num_samples, 6) if num_samples else 0.0
    videos_text = index.jsonl(rows)
    content = {
        "format_version": FORMAT_VERSION,
        "dataset": listing.dataset,
        "split": listing.split,
        "evaluation_subset": listing.evaluation_subset,
        "classes": list(listing.classes),
        "settings": settings.to_json(),
        "videos": {
            "listed": len(listing.videos),
            "written": len(rows),
            "skipped": len(skipped),
            "rows_sha256": hashlib.sha256(videos_text.encode("utf-8", "surrogateescape")).hexdigest(),
        },
        "num_clips": sum(shard["num_samples"] for shard in shards),
        "event_density": density,
        "shards": shards,
    }
    write_atomically(out / index.VIDEOS_NAME, videos_text)
    write_atomically(out / index.SKIPPED_NAME, index.jsonl(skipped))
    write_atomically(out / "README.md", card.dataset_card(content))
    # the index last: where it stands, everything it names stands
    write_atomically(out / index.INDEX_NAME, index.seal(content))
    return PrepareSummary(
        out=out,
        listed=len(listing.videos),
        written=len(rows),
        skipped=len(skipped),
        num_clips=sum(shard["num_samples"] for shard in shards),
        num_shards=len(shards),
        num_built=num_built,
        num_bytes=sum(shard["num_bytes"] for shard in shards),
        event_density=density,
        seconds=seconds,
        skipped_videos=tuple(SkippedVideo(**row) for row in skipped),
    )


def _judge(summary: PrepareSummary, strict: bool) -> None:
    where = summary.out / index.SKIPPED_NAME
    if summary.listed and not summary.written:
        first = summary.skipped_videos[0]
        raise RespikeError(
            f"none of the {summary.listed} listed videos could be read ({first.video}: {first.stage}: {first.reason})",
            f"all are named in {where}; look at --root first",
        )
    if strict and summary.skipped:
        raise RespikeError(
            f"{summary.skipped} of {summary.listed} videos were skipped, and --strict was given",
            f"they are named in {where}; everything else is written",
        )
