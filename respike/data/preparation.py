"""Preparation of a data set: plan the shards, keep finished ones, build the others, write the index last."""

import dataclasses
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from respike.common.errors import RespikeError
from respike.common.files import INDEX_NAME
from respike.common.progress import SILENCE, Progress
from respike.common.text import counted, name_some
from respike.data.executors import local
from respike.data.executors.base import Executor, Job, run_serially
from respike.data.index import MANIFEST_FOLDER, SkippedVideo
from respike.data.output import OutputState, PrepareSummary, remove_stale_temp_files, summarise, write_index
from respike.data.plan import Part, ShardManifest, ShardTask, plan_shards
from respike.data.prepare_config import DEFAULT_VIDEO_TIMEOUT_SECONDS, PrepareConfig
from respike.data.prepare_stats import PrepareSpeed, PrepareStats
from respike.data.remote_output import open_output
from respike.data.shard_worker import prepare_shard, retry_shard
from respike.types import VideoListing

__all__ = ["Part", "PrepareConfig", "PrepareSummary", "SkippedVideo", "join_parts", "plan_shards", "prepare"]

Existing = Literal["resume", "retry-skipped", "overwrite"]
"""What happens to the output of an earlier run: keep finished shards; also try skipped videos again; or make all shards
again."""


def prepare(
    listing: VideoListing,
    out: Path | str,
    config: PrepareConfig,
    *,
    num_workers: int | None = None,
    strict: bool = False,
    existing: Existing = "resume",
    part: Part | None = None,
    video_timeout_seconds: float | None = DEFAULT_VIDEO_TIMEOUT_SECONDS,
    executor: Executor = local.run,
    progress: Progress = SILENCE,
) -> PrepareSummary:
    """Turn videos into shards of key frames and residual events, and write their index.

    The bytes of the output depend only on the videos, the listing and `config`: not on workers, parts, executor, or how
    often the run was stopped and started again. A run that is started again keeps finished shards if their settings and
    source files are unchanged.

    Args:
        listing: The videos, with labels and subsets. Its warnings are passed on to `progress`.
        out: The output folder, or an address that fsspec can write, such as `s3://bucket/name`.
        config: The settings that decide the bytes. They must be those of earlier runs in `out`.
        num_workers: The most processes or Ray tasks at once. None means one per core of this machine or cluster.
        strict: Raise RespikeError at the end if a video was skipped. Everything else is written even so.
        existing: What happens to the output of an earlier run, see `Existing`.
        part: Make only this share of the shards and no index. `join_parts` writes it after all parts are done.
        video_timeout_seconds: Skip a video that gives no frame for so long. None means no limit.
        executor: Runs the work: `local.run`, or `ray.run` with the address of a cluster.
        progress: What the run reports to.

    Videos that are missing or unreadable, that crash their worker twice, or that time out are skipped. They are listed
    in skipped.jsonl with stage and reason, and in the summary.

    Raises:
        MismatchError: `out` was prepared with other settings or classes.
        SettingError: `out` cannot be written to, or holds files that respike did not write.
        RespikeError: another run is at work in `out`, no video could be read, or the disk or store refuses a file.
    """
    started = time.perf_counter()
    for warning in listing.warnings:
        progress.warn(warning)
    with open_output(out) as state:
        state.create()
        with state.lock(part):
            if existing == "overwrite":
                if part is not None:
                    raise RespikeError(
                        "overwrite with a part would remove the shards of the other parts",
                        "overwrite without a part first, or choose another output folder",
                    )
                state.clear()
            retry = existing == "retry-skipped"
            state.check_settings(listing, config, retry=retry)
            tasks = plan_shards(listing, state.out, config)
            state.write_plan(listing, tasks)
            own_tasks = tasks if part is None else part.select(tasks)
            finished, open_tasks = _find_finished(own_tasks, state, retry=retry)
            if finished:
                progress.say(f"finished shards kept: {len(finished):,} of {len(own_tasks):,}")
            if open_tasks:
                # the index lists shards that are about to change; without it no reader mixes old and new ones
                state.remove(INDEX_NAME)
            if state.remote is not None and state.remote.is_in_process_memory:
                executor = run_serially
            job: Job[ShardTask, ShardManifest] = Job(
                function=partial(prepare_shard, state.remote),
                retry=retry_shard,
                timeout_seconds=video_timeout_seconds,
            )
            folders = (state.out, state.out / MANIFEST_FOLDER)
            with remove_stale_temp_files(folders, {task.name for task in own_tasks}):
                built, speed = _build(executor, job, open_tasks, num_workers, progress)
            manifests = [(finished | built)[task.name] for task in own_tasks]
            if part is None:
                _finish(state, manifests)
            summary = replace(
                summarise(out, manifests, part),
                num_built=sum(_is_new(built[task.name], task) for task in open_tasks),
                seconds=time.perf_counter() - started,
                speed=speed,
            )
            if open_tasks:
                state.log_run(_log_record(summary))
    _raise_if_unusable(summary, strict)
    return summary


def join_parts(out: Path | str) -> PrepareSummary:
    """Write the index of an output folder or address whose parts were prepared by separate runs.

    The result is byte-identical to that of one run without parts. Also restores an index that was lost.

    Raises RespikeError if a shard is not finished, with the parts to run again, if another run is at work in `out`, or
    if nothing was prepared there.
    """
    started = time.perf_counter()
    with open_output(out) as state:
        # before the lock, which would make a folder where there is none
        state.read_plan()
        with state.lock():
            # and again, because another run may have changed it until this one had the lock
            _, settings, shards = state.read_plan()
            manifests = {shard["name"]: state.read_manifest(shard["name"]) for shard in shards}
            missing = [
                shard["name"]
                for shard in shards
                if not _is_finished(manifests[shard["name"]], shard["members"], settings)
            ]
            if missing:
                raise RespikeError(
                    f"shards of {out} are not finished: {len(missing):,} of {len(shards):,}, "
                    f"{name_some(missing, most=3)}",
                    state.suggest_parts(missing, [shard["name"] for shard in shards]),
                )
            finished = [manifest for manifest in manifests.values() if manifest is not None]
            _finish(state, finished)
    return replace(summarise(out, finished), seconds=time.perf_counter() - started)


def _is_finished(manifest: ShardManifest | None, members: str, settings: Mapping[str, Any]) -> bool:
    """Whether a shard was made from these videos and settings, including `keep_partial` if it skipped a video."""
    if manifest is None or manifest["members"] != members:
        return False
    return not manifest["skipped"] or bool(manifest["keep_partial"] == settings.get("keep_partial", False))


def _finish(state: OutputState, manifests: Sequence[ShardManifest]) -> None:
    """Write the index, and remove what it does not list."""
    head, settings, shards = state.read_plan()
    state.remove_other_shards({shard["name"] for shard in shards})
    write_index(state.out, head, settings, manifests)
    state.publish()


def _find_finished(
    tasks: Sequence[ShardTask], state: OutputState, *, retry: bool
) -> tuple[dict[str, ShardManifest], list[ShardTask]]:
    """Return the manifests of finished shards, and the tasks to do, largest first.

    A large shard that starts last would keep one worker busy while the others are idle.
    """
    finished: dict[str, ShardManifest] = {}
    open_tasks = []
    for task in tasks:
        manifest = state.read_manifest(task.name)
        if manifest is None or manifest["fingerprint"] != task.fingerprint:
            open_tasks.append(task)
        elif manifest["skipped"] and (retry or manifest["keep_partial"] != task.config.keep_partial):
            open_tasks.append(replace(task, previous=manifest))
        else:
            finished[task.name] = manifest
    return finished, sorted(open_tasks, key=lambda task: -task.num_source_bytes)


def _build(
    executor: Executor,
    job: Job[ShardTask, ShardManifest],
    tasks: Sequence[ShardTask],
    num_workers: int | None,
    progress: Progress,
) -> tuple[dict[str, ShardManifest], PrepareSpeed]:
    manifests: dict[str, ShardManifest] = {}
    num_videos = sum(len(task.videos) for task in tasks)
    with progress.task("prepare", total=num_videos, unit="videos") as shown:
        stats = PrepareStats(shown)
        for number, manifest in executor(job, tasks, num_workers, stats.add):
            task = tasks[number]
            manifests[task.name] = manifest
            stats.finish_shard(task.name, len(task.videos), len(manifest["skipped"]))
        return manifests, stats.speed()


def _is_new(manifest: ShardManifest, task: ShardTask) -> bool:
    """Whether a task wrote a shard, not only a manifest."""
    return manifest["shard"] is not None and (task.previous is None or manifest["shard"] != task.previous["shard"])


def _log_record(summary: PrepareSummary) -> dict[str, Any]:
    """What the log says of a run: the facts that differ from run to run."""
    return {
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "part": str(summary.part) if summary.part else None,
        "seconds": round(summary.seconds, 3),
        "num_built": summary.num_built,
        "written": summary.written,
        "skipped": summary.skipped,
        "speed": dataclasses.asdict(summary.speed),
    }


def _raise_if_unusable(summary: PrepareSummary, strict: bool) -> None:
    # a small part may well hold only missing videos
    if summary.part is None and summary.listed and not summary.written:
        first = summary.skipped_videos[0]
        raise RespikeError(
            f"no video could be read of {counted(summary.listed, 'listed video')}; "
            f"the first is {first.video}: {first.stage}: {first.reason}",
            f"see {summary.skipped_path} for all of them; is the root folder of the videos right?",
        )
    if strict and summary.skipped:
        when = "" if summary.part is None else " once the parts are joined"
        raise RespikeError(
            f"videos skipped: {summary.skipped:,} of {summary.listed:,}, and strict allows none",
            f"see {summary.skipped_path}{when}; everything else is written",
        )
