"""Preparation: plan the shards, skip finished ones, build the rest, write the index last."""

import dataclasses
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from respike.common.errors import RespikeError
from respike.common.progress import SILENCE, Progress
from respike.common.text import agree, counted_of, name_some
from respike.data.executors import base, local
from respike.data.executors.base import Executor, Job
from respike.data.index import SkippedVideo
from respike.data.output import OutputState, PrepareSummary, remove_stale_temp_files, summarise, write_index
from respike.data.plan import Part, ShardManifest, ShardTask, plan_shards
from respike.data.prepare_config import PrepareConfig
from respike.data.prepare_stats import PrepareSpeed, PrepareStats
from respike.data.remote_output import open_output
from respike.data.shard_worker import DEFAULT_VIDEO_TIMEOUT_SECONDS, after_deaths, make_shard
from respike.types import VideoListing

__all__ = ["Part", "PrepareConfig", "PrepareSummary", "SkippedVideo", "join_parts", "plan_shards", "prepare"]

Existing = Literal["resume", "retry-skipped", "overwrite"]
"""What becomes of what an earlier run left: finished shards are kept; the same, but what was skipped is tried again;
all is made anew."""
_Marks = dict[str, ShardManifest]


def prepare(
    listing: VideoListing,
    out: Path | str,
    settings: PrepareConfig,
    *,
    num_workers: int | None = None,
    strict: bool = False,
    existing: Existing = "resume",
    part: Part | None = None,
    video_timeout_seconds: float | None = DEFAULT_VIDEO_TIMEOUT_SECONDS,
    engine: Executor = local.run,
    progress: Progress = SILENCE,
) -> PrepareSummary:
    """Turn the listed videos into shards under `out`, a folder or an address that fsspec writes, and an index beside.

    Finished shards whose settings and source files are unchanged are kept, unless `existing` says otherwise. Unreadable
    videos, those that kill their worker, and those that give no frame for `video_timeout_seconds` (None: for ever) are
    skipped and recorded; with `strict` they are an error once all else is written. With `part` only that share of the
    shards is made and no index is written: `join_parts` does it once all parts are there. The bytes depend on the input
    and the settings alone, not on `num_workers` (None: one a core of this machine, or of a cluster), parts or engine.

    Raises MismatchError where `out` was made with other settings or classes, RespikeError where another run is at
    work there, nothing could be read, or the disk refuses.
    """
    started = time.perf_counter()
    for warning in listing.warnings:
        progress.warn(warning)
    with open_output(out) as state:
        state.make()
        with state.lock(part):
            if existing == "overwrite":
                _empty(state, part)
            retry = existing == "retry-skipped"
            state.check_settings(listing, settings, retry=retry)
            tasks = plan_shards(listing, state.out, settings)
            state.write_plan(listing, tasks)
            own = tasks if part is None else part.of(tasks)
            kept, open_tasks = _sort_out(own, state, retry=retry, progress=progress)
            work = partial(make_shard, state.remote)
            job: Job[ShardTask, ShardManifest] = Job(
                function=work, recover=after_deaths, deadline_seconds=video_timeout_seconds
            )
            if state.remote is not None and state.remote.in_this_process:
                engine = base.run
            with remove_stale_temp_files((state.out, state.folder / "done"), {task.name for task in own}):
                built, speed = _build(engine, job, open_tasks, num_workers, progress)
            marks = [(kept | built)[task.name] for task in own]
            if part is None:
                _finish(state, marks)
            summary = replace(
                summarise(out, marks, part),
                num_built=sum(_is_new(built[task.name], task) for task in open_tasks),
                seconds=time.perf_counter() - started,
                speed=speed,
            )
            if open_tasks:
                _log(state, summary)
    _judge(summary, strict)
    return summary


def join_parts(out: Path | str) -> PrepareSummary:
    """Write the index of an output folder whose parts were prepared by runs of their own.

    Raises RespikeError that names what is missing where a part has not finished.
    """
    started = time.perf_counter()
    with open_output(out) as state:
        # first without the lock: its file would make a folder where there is none
        state.read_plan()
        with state.lock():
            # again: until it had the lock another run might have written
            _, settings, shards = state.read_plan()
            marks = {shard["name"]: state.read_mark(shard["name"]) for shard in shards}
            missing = [
                shard["name"] for shard in shards if not _is_finished(marks[shard["name"]], shard["members"], settings)
            ]
            if missing:
                raise RespikeError(
                    f"{counted_of(len(missing), len(shards), 'shard')} of {out} {agree(len(missing), 'is', 'are')} not "
                    f"finished: {name_some(missing, most=3)}",
                    state.name_parts(missing, [shard["name"] for shard in shards]),
                )
            finished = [mark for mark in marks.values() if mark is not None]
            _finish(state, finished)
    return replace(summarise(out, finished), seconds=time.perf_counter() - started)


def _is_finished(mark: ShardManifest | None, members: str, settings: Mapping[str, Any]) -> bool:
    """Whether a shard was made of these videos and settings, and what it skipped was judged by the last of them."""
    if mark is None or mark["members"] != members:
        return False
    return not mark["skipped"] or bool(mark["keep_partial"] == settings.get("keep_partial", False))


def _finish(state: OutputState, marks: Sequence[ShardManifest]) -> None:
    """Write the index, and leave nothing beside what it names."""
    head, settings, shards = state.read_plan()
    state.drop_strangers({shard["name"] for shard in shards})
    write_index(state.out, head, settings, marks)
    state.publish()


def _empty(state: OutputState, part: Part | None) -> None:
    if part is not None:
        raise RespikeError(
            "one part cannot make the whole folder anew", "empty it with a run of its own, or give another --out"
        )
    state.empty()


def _sort_out(
    tasks: Sequence[ShardTask], state: OutputState, *, retry: bool, progress: Progress
) -> tuple[_Marks, list[ShardTask]]:
    """Tell what is finished from what is to do, the largest first: one begun last would be waited for alone."""
    kept: _Marks = {}
    open_tasks = []
    for task in tasks:
        mark = state.read_mark(task.name)
        if mark is None or mark["fingerprint"] != task.fingerprint:
            open_tasks.append(task)
        elif mark["skipped"] and (retry or mark["keep_partial"] != task.settings.keep_partial):
            open_tasks.append(replace(task, previous=mark))
        else:
            kept[task.name] = mark
    if kept:
        progress.say(f"{counted_of(len(kept), len(tasks), 'shard')} {agree(len(kept), 'is', 'are')} finished and kept")
    # the old index promises shards that are about to change; without it no reader mixes old and new
    if open_tasks:
        state.drop_index()
    return kept, sorted(open_tasks, key=lambda task: -task.num_source_bytes)


def _is_new(mark: ShardManifest, task: ShardTask) -> bool:
    return mark["shard"] is not None and (task.previous is None or mark["shard"] != task.previous["shard"])


def _build(
    engine: Executor,
    job: Job[ShardTask, ShardManifest],
    tasks: list[ShardTask],
    num_workers: int | None,
    progress: Progress,
) -> tuple[_Marks, PrepareSpeed]:
    marks: _Marks = {}
    num_videos = sum(len(task.videos) for task in tasks)
    with progress.task("prepare", total=num_videos, unit="videos") as shown:
        tally = PrepareStats(shown)
        for number, mark in engine(job, tasks, num_workers, tally.hear):
            task = tasks[number]
            marks[task.name] = mark
            tally.finish_shard(task.name, len(task.videos), len(mark["skipped"]))
        return marks, tally.speed()


def _log(state: OutputState, summary: PrepareSummary) -> None:
    """Keep the facts of a run that differ from run to run where they disturb nobody."""
    state.log(
        {
            "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": socket.gethostname(),
            "part": str(summary.part) if summary.part else None,
            "seconds": round(summary.seconds, 3),
            "num_built": summary.num_built,
            "written": summary.written,
            "skipped": summary.skipped,
            "speed": dataclasses.asdict(summary.speed),
        }
    )


def _judge(summary: PrepareSummary, strict: bool) -> None:
    where = summary.skipped_path
    # a small part may well hold nothing but missing videos
    if summary.part is None and summary.listed and not summary.written:
        first = summary.skipped_videos[0]
        raise RespikeError(
            f"none of the {summary.listed} listed videos could be read ({first.video}: {first.stage}: {first.reason})",
            f"all are named in {where}; look at --root first",
        )
    if strict and summary.skipped:
        was = agree(summary.skipped, "was", "were")
        raise RespikeError(
            f"{counted_of(summary.skipped, summary.listed, 'video')} {was} skipped, and --strict was given",
            f"they are named in {where}{'' if summary.part is None else ' once the parts are joined'}; "
            "everything else is written",
        )
