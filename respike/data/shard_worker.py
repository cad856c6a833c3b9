"""Shard worker: builds one shard from its videos, in any process of any executor."""

import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from respike.common import failpoints
from respike.common.errors import RespikeError, UnreadableVideoError
from respike.common.files import atomic_writer, seal, write_atomically, write_error
from respike.common.storage import RemoteFolder
from respike.data.clip_encoder import ClipSink, EncodedClip, EncodedVideo, encode_video
from respike.data.executors.base import MAX_ATTEMPTS, PendingResult, Report, WorkerDeath
from respike.data.index import SkippedVideo, manifest_name
from respike.data.plan import ShardManifest, ShardTask
from respike.data.shard import ShardWriter
from respike.types import VideoRef

# one crash may have a cause outside the video, such as memory that other programs use
_MAX_CRASHES_PER_VIDEO = 2
_SECONDS_BETWEEN_EVENTS = 0.5


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """What a worker reports while it builds a shard.

    `kind` is one of: `start`, it starts the shard, maybe again; `video`, it is at that video and has decoded
    `num_frames` since its last event; `done` and `skipped`, it has finished the video after `work_seconds` of work on
    `video_seconds` of playing time; `write`, only the disk is left, however long that takes.
    """

    kind: Literal["start", "video", "done", "skipped", "write"]
    shard: str
    video: str = ""
    num_frames: int = 0
    work_seconds: float = 0.0
    video_seconds: float = 0.0

    @property
    def pauses_timeout(self) -> bool:
        """Whether the executor's timeout is off until the next event."""
        return self.kind == "write"


class Heartbeat:
    """Called at each decoded frame; reports now and then, so that the executor can tell work from a hang."""

    def __init__(self, shard: str, video: str, report: Report) -> None:
        self._shard, self._video, self._report = shard, video, report
        self._last_sent = time.monotonic()
        self._num_frames = 0

    def __call__(self, num_frames: int) -> None:
        """Count `num_frames` more frames as decoded."""
        self._num_frames += num_frames
        if time.monotonic() - self._last_sent > _SECONDS_BETWEEN_EVENTS:
            self.send("video")

    def send(
        self, kind: Literal["video", "done", "skipped"], *, work_seconds: float = 0.0, video_seconds: float = 0.0
    ) -> None:
        """Report an event now, with the frames since the last one."""
        self._report(
            ProgressEvent(
                kind=kind,
                shard=self._shard,
                video=self._video,
                num_frames=self._num_frames,
                work_seconds=work_seconds,
                video_seconds=video_seconds,
            )
        )
        self._last_sent, self._num_frames = time.monotonic(), 0


def prepare_shard(remote: RemoteFolder | None, task: ShardTask, report: Report) -> PendingResult[ShardManifest]:
    """Build a shard where `task` says, or with `remote` in a scratch folder, from which it is uploaded.

    Raises RespikeError if this machine does not see the output folder, or none of the videos that were seen when they
    were listed. On a cluster that means that one node lacks a file system; its videos must not count as missing.
    """
    _check_videos_visible(task)
    if remote is None:
        if not task.path.parent.is_dir():
            raise RespikeError(
                f"{socket.gethostname()} does not see the output folder {task.path.parent}",
                "choose an output folder that every node sees under the same path, or a remote address",
            )
        return build_shard(task, report)
    # on the machine that started the run, in the run's own scratch folder: the run clears it even if this process dies
    parent = task.path.parent if task.path.parent.is_dir() else None
    with ExitStack() as unfinished:
        scratch = Path(unfinished.enter_context(tempfile.TemporaryDirectory(prefix="respike-", dir=parent)))
        local_task = replace(task, path=scratch / task.name, manifest_path=scratch / "manifest.json")
        built = build_shard(local_task, report)
        return PendingResult(partial(_upload, remote, local_task, built, unfinished.pop_all()))


def _check_videos_visible(task: ShardTask) -> None:
    # if the planning machine saw none either, the videos are just missing
    if not task.num_source_bytes:
        return
    paths = [video.path for video in task.videos if video.path is not None]
    if paths and not any(map(os.path.exists, paths)):
        raise RespikeError(
            f"{socket.gethostname()} sees none of the {len(paths)} listed videos of {task.name}, such as {paths[0]}",
            "every machine of the cluster must see the videos under the same path; then run the same command again",
        )


def _upload(
    remote: RemoteFolder, local_task: ShardTask, built: PendingResult[ShardManifest], scratch: ExitStack
) -> ShardManifest:
    """Bring a shard and its manifest from the scratch folder to `remote`, however long the network takes."""
    with scratch:
        manifest = built.wait()
        if local_task.path.exists():
            remote.remove(manifest_name(local_task.name))
            remote.upload(local_task.path, local_task.name)
        elif manifest["shard"] is None:
            remote.remove(local_task.name)
        # the manifest after the shard: it says that the shard is complete
        remote.write(manifest_name(local_task.name), seal(manifest))
        return manifest


def build_shard(task: ShardTask, report: Report) -> PendingResult[ShardManifest]:
    """Write a shard and its manifest; both have their names once the pending result is there.

    `report` is called with ProgressEvents. If no video can be read, only the manifest is written. If `task.previous` is
    an earlier manifest and none of its skipped videos can be read now, only the manifest is written again.
    """
    report(ProgressEvent(kind="start", shard=task.name))
    if task.previous is not None and (unchanged := _retry_skipped(task, task.previous, report)) is not None:
        return PendingResult(lambda: unchanged)
    videos: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    # the manifest before the shard: it must never describe a shard that is not there
    task.manifest_path.unlink(missing_ok=True)
    task.path.unlink(missing_ok=True)
    with ExitStack() as unfinished:
        file = unfinished.enter_context(atomic_writer(task.path, keep=lambda: bool(videos)))
        writer = ShardWriter(file)
        sink = _ShardSink(writer, task.path)
        for video in task.videos:
            try:
                encoded = _encode(video, task, sink, report)
            except UnreadableVideoError as error:
                sink.restart()
                skipped.append(_skipped_row(video, error))
            else:
                videos.append(_video_row(video, task.name, sink.keep(), encoded))
        report(ProgressEvent(kind="write", shard=task.name))
        num_bytes, sha256 = writer.close()
        shard = {"name": task.name, "subset": task.subset, "num_samples": writer.num_samples}
        manifest: ShardManifest = {
            "members": task.members,
            "fingerprint": task.fingerprint,
            "keep_partial": task.config.keep_partial,
            "shard": shard | {"num_bytes": num_bytes, "sha256": sha256} if videos else None,
            "videos": videos,
            "skipped": skipped,
            "num_events": sink.num_events,
            "num_event_samples": sink.num_event_samples,
        }
        return PendingResult(partial(_finish, unfinished.pop_all(), task, manifest))


def _finish(unfinished: ExitStack, task: ShardTask, manifest: ShardManifest) -> ShardManifest:
    """Wait for the disk. Most of the writing time passes here, and no processor is needed for it."""
    unfinished.close()
    # the manifest after the shard: it says that the shard is complete
    write_atomically(task.manifest_path, seal(manifest))
    return manifest


def _retry_skipped(task: ShardTask, previous: Mapping[str, Any], report: Report) -> ShardManifest | None:
    """Decode the videos that were skipped before.

    Returns the manifest with what is wrong with them now; None as soon as one can be read, because then the shard has
    to be built again.
    """
    failed = {row["video"] for row in previous["skipped"]}
    skipped = []
    for video in task.videos:
        if video.video_id not in failed:
            continue
        try:
            _encode(video, task, _DiscardSink(), report)
        except UnreadableVideoError as error:
            skipped.append(_skipped_row(video, error))
        else:
            return None
    manifest = {**previous, "skipped": skipped, "keep_partial": task.config.keep_partial}
    if manifest != previous:
        write_atomically(task.manifest_path, seal(manifest))
    return manifest


def _encode(video: VideoRef, task: ShardTask, sink: ClipSink, report: Report) -> EncodedVideo:
    """Encode a video and report progress. Raises UnreadableVideoError for whatever is wrong with the video."""
    started = time.monotonic()
    heartbeat = Heartbeat(task.name, video.video_id, report)
    kind: Literal["done", "skipped"] = "skipped"
    video_seconds = 0.0
    try:
        raise_if_crashed([death for death in task.deaths if _video_of(death) == video.video_id])
        report(ProgressEvent(kind="video", shard=task.name, video=video.video_id))
        failpoints.reach("decode", video.video_id)
        encoded = encode_video(video, task.config, sink, training=task.training, on_frames=heartbeat)
        kind, video_seconds = "done", encoded.seconds
        return encoded
    except RespikeError:
        raise
    except OSError as error:
        # this is the video's file: the sink turns errors of the output into a RespikeError
        raise UnreadableVideoError("read", error.strerror or type(error).__name__) from error
    except Exception as error:
        # one video that makes a library fail must not end a run of a week
        reason = str(error).partition("\n")[0]
        raise UnreadableVideoError("encode", f"{type(error).__name__}: {reason}") from error
    finally:
        heartbeat.send(kind, work_seconds=time.monotonic() - started, video_seconds=video_seconds)


class _ShardSink:
    """Adds the clips of one video after another to a shard at `path`; removes those of a video that is not kept.

    Raises RespikeError if the disk refuses a clip, so that the video is not skipped.
    """

    def __init__(self, writer: ShardWriter, path: Path) -> None:
        self._writer, self._path = writer, path
        self._start = writer.mark()
        # events and event samples: of the videos that are kept, and together with the current one
        self._kept = self._current = (0, 0)

    @property
    def num_events(self) -> int:
        return self._kept[0]

    @property
    def num_event_samples(self) -> int:
        return self._kept[1]

    def add(self, clip: EncodedClip) -> None:
        with self._write_errors_raised():
            failpoints.reach("clip", clip.key)
            self._writer.add(clip.key, clip.members)
        self._current = (self._current[0] + clip.num_events, self._current[1] + clip.num_event_samples)

    def restart(self) -> None:
        with self._write_errors_raised():
            self._writer.rollback(self._start)
        self._current = self._kept

    @contextmanager
    def _write_errors_raised(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self._path, error) from error

    def keep(self) -> int:
        """Keep the clips of the current video; return their number."""
        num_clips = self._writer.num_samples - self._start.num_samples
        self._start, self._kept = self._writer.mark(), self._current
        return num_clips


class _DiscardSink:
    """Takes the clips of a video that is only checked."""

    def add(self, clip: EncodedClip) -> None:
        pass

    def restart(self) -> None:
        pass


def _skipped_row(video: VideoRef, error: UnreadableVideoError) -> dict[str, str]:
    return asdict(SkippedVideo(video=video.video_id, subset=video.subset, stage=error.stage, reason=error.reason))


def _video_row(video: VideoRef, shard: str, num_clips: int, encoded: EncodedVideo) -> dict[str, Any]:
    row: dict[str, Any] = {
        "video": video.video_id,
        "label": video.label,
        "subset": video.subset,
        "group": video.group,
        "shard": shard,
        "num_clips": num_clips,
    }
    # only where they say something, so that the rows of usual videos are those of earlier versions
    if encoded.partial is not None:
        row["partial"] = encoded.partial
    if encoded.sample_aspect_ratio != "1:1":
        row["sample_aspect_ratio"] = encoded.sample_aspect_ratio
    return row


# Crash policy. The last event of a dead worker says which video it was at. The shard is built again, and a video that
# hung once or crashed workers twice is skipped. Crashes outside of any video end the run after a few attempts.


def retry_shard(task: ShardTask, deaths: Sequence[WorkerDeath]) -> ShardTask:
    """Return the task to try after workers died at a shard: it knows the deaths, and skips the videos that caused them.

    Raises RespikeError if workers die `MAX_ATTEMPTS` times outside of any video.
    """
    outside = [death for death in deaths if _video_of(death) is None]
    if len(outside) >= MAX_ATTEMPTS:
        raise RespikeError(
            f"a worker died {len(outside)} times at {task}, outside of any video: {outside[-1].cause}",
            "give each worker more memory, or use fewer workers",
        )
    return replace(task, deaths=tuple(deaths))


def _video_of(death: WorkerDeath) -> str | None:
    """The video at which a worker died, None if it was at no video."""
    event = death.last_event
    return event.video if isinstance(event, ProgressEvent) and event.kind == "video" else None


def raise_if_crashed(deaths: Sequence[WorkerDeath]) -> None:
    """Raise UnreadableVideoError if a video hung once or crashed workers twice; `deaths` are those at this video."""
    if any(death.is_timeout for death in deaths):
        raise UnreadableVideoError("timeout", "no frame came in time")
    if len(deaths) >= _MAX_CRASHES_PER_VIDEO:
        cause, _ = Counter(death.cause for death in deaths).most_common(1)[0]
        raise UnreadableVideoError("crash", f"its worker died {len(deaths)} times: {cause}")
