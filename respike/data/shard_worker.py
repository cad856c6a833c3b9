"""Shard worker: builds one shard from its videos, on any executor."""

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
from respike.data.index import SkippedVideo
from respike.data.plan import STATE_FOLDER, ShardManifest, ShardTask
from respike.data.shard import ShardWriter
from respike.types import VideoRef

_SECONDS_BETWEEN_NOTES = 0.5


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """What a worker says while it builds a shard.

    `begin` that it starts the shard, maybe again; `video` that it is at that video, with `num_frames` decoded since the
    last note; `done` and `skipped` that it is through with it, after `spent_seconds` of work on `seconds` of video;
    `write` that all that is left is to write, however long the disk takes.
    """

    kind: Literal["begin", "video", "done", "skipped", "write"]
    shard: str
    video: str = ""
    num_frames: int = 0
    spent_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def untimed(self) -> bool:
        """Whether the engine's deadline does not run until the next note."""
        return self.kind == "write"


class Heartbeat:
    """Called at each frame; tells of it now and then, so that a worker that hangs can be told from one that works."""

    def __init__(self, shard: str, video: str, report: Report) -> None:
        self._shard, self._video, self._report = shard, video, report
        self._told = time.monotonic()
        self._num_frames = 0

    def __call__(self, num_frames: int) -> None:
        """Take in that `num_frames` more are decoded."""
        self._num_frames += num_frames
        if time.monotonic() - self._told > _SECONDS_BETWEEN_NOTES:
            self.tell("video")

    def tell(
        self, kind: Literal["video", "done", "skipped"], *, spent_seconds: float = 0.0, seconds: float = 0.0
    ) -> None:
        """Send a note now, with the frames since the last one."""
        note = ProgressEvent(
            kind=kind,
            shard=self._shard,
            video=self._video,
            num_frames=self._num_frames,
            spent_seconds=spent_seconds,
            seconds=seconds,
        )
        self._report(note)
        self._told, self._num_frames = time.monotonic(), 0


DEFAULT_VIDEO_TIMEOUT_SECONDS = 120.0
# a worker can be killed for what others do, so a video is suspected after its first death and guilty after another
_DEATHS_TO_CONVICT = 2


def raise_if_crashed_before(deaths: Sequence[WorkerDeath]) -> None:
    """Raise UnreadableVideoError for a video at which workers ended, `deaths` being these."""
    if any(death.hung for death in deaths):
        raise UnreadableVideoError("timeout", "no frame came in time")
    if len(deaths) >= _DEATHS_TO_CONVICT:
        cause, _ = Counter(death.cause for death in deaths).most_common(1)[0]
        raise UnreadableVideoError("crash", f"its worker died {len(deaths)} times: {cause}")


def build_shard(task: ShardTask, report: Report) -> PendingResult[ShardManifest]:
    """Write a shard; once settled it has its name and its finished-mark. `report` hears how it goes, as VideoNotes.

    A shard of which no video could be read is not written; its mark is. Where `task.previous` is an
    earlier mark, nothing but the mark is written unless a video that was skipped then can be read now.
    """
    report(ProgressEvent(kind="begin", shard=task.name))
    if task.previous is not None and (unchanged := _try_again(task, task.previous, report)) is not None:
        return PendingResult(lambda: unchanged)
    videos: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    # the mark before the shard: it must never promise another shard than the one that stands
    task.mark_path.unlink(missing_ok=True)
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
                skipped.append(_skipped(video, error))
            else:
                videos.append(_video_row(video, task.name, sink.keep(), encoded))
        report(ProgressEvent(kind="write", shard=task.name))
        num_bytes, sha256 = writer.close()
        shard = {"name": task.name, "subset": task.subset, "num_samples": writer.num_samples}
        mark: ShardManifest = {
            "members": task.members,
            "fingerprint": task.fingerprint,
            "keep_partial": task.settings.keep_partial,
            "shard": shard | {"num_bytes": num_bytes, "sha256": sha256} if videos else None,
            "videos": videos,
            "skipped": skipped,
            "num_events": sink.num_events,
            "num_event_samples": sink.num_event_samples,
        }
        return PendingResult(partial(_finish, unfinished.pop_all(), task, mark))


def _finish(unfinished: ExitStack, task: ShardTask, mark: ShardManifest) -> ShardManifest:
    """Wait for the disk: most of it is spent here, and no processor is needed for it."""
    unfinished.close()
    # the mark after the shard: it promises that the shard stands
    write_atomically(task.mark_path, seal(mark))
    return mark


def after_deaths(task: ShardTask, deaths: Sequence[WorkerDeath]) -> ShardTask:
    """What to try after workers died at a shard: the same, less the videos that are guilty of it.

    Raises RespikeError where workers die that are at no video.
    """
    homeless = [death for death in deaths if _video_of(death) is None]
    if len(homeless) >= MAX_ATTEMPTS:
        raise RespikeError(
            f"a worker died {len(homeless)} times at {task}, outside of any video: {homeless[-1].cause}",
            "give each worker more memory, or run with fewer --workers",
        )
    return replace(task, deaths=tuple(deaths))


def _video_of(death: WorkerDeath) -> str | None:
    note = death.note
    return note.video if isinstance(note, ProgressEvent) and note.kind == "video" else None


def _try_again(task: ShardTask, previous: Mapping[str, Any], report: Report) -> ShardManifest | None:
    """Read the videos that failed before; return the mark with what is wrong with them now, None once one is fine."""
    failed = {row["video"] for row in previous["skipped"]}
    skipped = []
    for video in task.videos:
        if video.video_id not in failed:
            continue
        try:
            _encode(video, task, _NoSink(), report)
        except UnreadableVideoError as error:
            skipped.append(_skipped(video, error))
        else:
            return None
    mark = {**previous, "skipped": skipped, "keep_partial": task.settings.keep_partial}
    if mark != previous:
        write_atomically(task.mark_path, seal(mark))
    return mark


def _encode(video: VideoRef, task: ShardTask, sink: ClipSink, report: Report) -> EncodedVideo:
    """Encode a video, telling how it goes; whatever is wrong with it becomes an UnreadableVideoError."""
    started = time.monotonic()
    beat = Heartbeat(task.name, video.video_id, report)
    kind: Literal["done", "skipped"] = "skipped"
    seconds = 0.0
    try:
        raise_if_crashed_before([death for death in task.deaths if _video_of(death) == video.video_id])
        report(ProgressEvent(kind="video", shard=task.name, video=video.video_id))
        failpoints.reach("decode", video.video_id)
        encoded = encode_video(video, task.settings, sink, training=task.training, beat=beat)
        kind, seconds = "done", encoded.seconds
        return encoded
    except RespikeError:
        raise
    except OSError as error:
        # what the output refuses comes as a RespikeError from the sink, so it is the video's file
        raise UnreadableVideoError("read", error.strerror or type(error).__name__) from error
    except Exception as error:
        # a week's run must not end at one video that trips a library
        reason = str(error).partition("\n")[0]
        raise UnreadableVideoError("encode", f"{type(error).__name__}: {reason}") from error
    finally:
        spent = time.monotonic() - started
        beat.tell(kind, spent_seconds=spent, seconds=seconds)


class _ShardSink:
    """Clips of one video after another, in a shard at `path`: what is not kept is taken out again.

    A disk that refuses them is a RespikeError, to be told from one that does not give the video.
    """

    def __init__(self, writer: ShardWriter, path: Path) -> None:
        self._writer, self._path = writer, path
        self._begin = writer.mark()
        self._counts = self._new = (0, 0)

    @property
    def num_events(self) -> int:
        return self._counts[0]

    @property
    def num_event_samples(self) -> int:
        return self._counts[1]

    def add(self, clip: EncodedClip) -> None:
        with self._writing():
            failpoints.reach("clip", clip.key)
            self._writer.add(clip.key, clip.members)
        self._new = (self._new[0] + clip.num_events, self._new[1] + clip.num_event_samples)

    def restart(self) -> None:
        with self._writing():
            self._writer.rollback(self._begin)
        self._new = self._counts

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self._path, error) from error

    def keep(self) -> int:
        """Keep the video's clips; return how many they are."""
        num_clips = self._writer.num_samples - self._begin.num_samples
        self._begin, self._counts = self._writer.mark(), self._new
        return num_clips


class _NoSink:
    """Where clips go that only have to be possible."""

    def add(self, clip: EncodedClip) -> None:
        pass

    def restart(self) -> None:
        pass


def _skipped(video: VideoRef, error: UnreadableVideoError) -> dict[str, str]:
    return asdict(SkippedVideo(video=video.video_id, subset=video.subset, stage=error.stage, reason=error.reason))


def _video_row(video: VideoRef, shard: str, num_clips: int, encoded: EncodedVideo) -> dict[str, Any]:
    row = {
        "video": video.video_id,
        "label": video.label,
        "subset": video.subset,
        "group": video.group,
        "shard": shard,
        "num_clips": num_clips,
    }
    return row if encoded.partial is None else row | {"partial": encoded.partial}


def make_shard(remote: RemoteFolder | None, task: ShardTask, report: Report) -> PendingResult[ShardManifest]:
    """Build a shard where the task says, or on this machine to be delivered to `remote`; once settled it stands there.

    Raises RespikeError where this machine sees none of the videos that were seen when they were listed, or not the
    output folder: on a cluster that is a file system which one node lacks, and must not make its videos count as
    missing.
    """
    _check_sight(task)
    if remote is None:
        if not task.path.parent.is_dir():
            raise RespikeError(
                f"{socket.gethostname()} does not see {task.path.parent}",
                "give an --out that every node sees under one path, or a remote address",
            )
        return build_shard(task, report)
    # on the machine that asked, its own scratch folder, which it clears whatever becomes of this process
    near = task.path.parent if task.path.parent.is_dir() else None
    with ExitStack() as unfinished:
        scratch = Path(unfinished.enter_context(tempfile.TemporaryDirectory(prefix="respike-", dir=near)))
        here = replace(task, path=scratch / task.name, mark_path=scratch / "mark.json")
        built = build_shard(here, report)
        return PendingResult(partial(_deliver, remote, here, built, unfinished.pop_all()))


def mark_name(shard: str) -> str:
    """Where the finished-mark of a shard stands in the output folder."""
    return f"{STATE_FOLDER}/done/{shard}.json"


def _deliver(
    remote: RemoteFolder, here: ShardTask, built: PendingResult[ShardManifest], scratch: ExitStack
) -> ShardManifest:
    """Bring a shard from the scratch folder to `remote`, however long the network takes."""
    with scratch:
        mark = built.settle()
        if here.path.exists():
            remote.remove(mark_name(here.name))
            remote.upload(here.path, here.name)
        elif mark["shard"] is None:
            remote.remove(here.name)
        # the mark after the shard: it promises that the shard stands there
        remote.write(mark_name(here.name), seal(mark))
        return mark


def _check_sight(task: ShardTask) -> None:
    # where the machine that planned saw nothing either, they are just missing: links to a disk that is gone
    if not task.num_source_bytes:
        return
    paths = [video.path for video in task.videos if video.path is not None]
    if paths and not any(map(os.path.exists, paths)):
        raise RespikeError(
            f"{socket.gethostname()} sees none of the {len(paths)} videos of {task.name} that were listed, "
            f"{paths[0]} for one",
            "every machine that takes part must see --root under the same path; then run the same command again",
        )
