"""Building one shard: its videos → samples in a tar, with a record of what was written and skipped.

This is what a worker runs. It loads no torch.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from respike import faults
from respike.data.building.guilt import refuse_guilty
from respike.data.building.notes import Beat, VideoNote
from respike.data.building.plan import Mark, ShardTask
from respike.data.encode import ClipSink, EncodedClip, EncodedVideo, encode_video
from respike.data.engines.base import MAX_ATTEMPTS, Death, Report, Settling
from respike.data.index import SkippedVideo
from respike.data.shards import ShardWriter
from respike.errors import RespikeError, UnreadableVideoError
from respike.files import atomic_writer, seal, write_atomically, write_error
from respike.sample import VideoRef


def build_shard(task: ShardTask, report: Report) -> Settling[Mark]:
    """Write a shard; once settled it has its name and its finished-mark. `report` hears how it goes, as VideoNotes.

    A shard of which no video could be read is not written; its mark is. Where `task.previous` is an
    earlier mark, nothing but the mark is written unless a video that was skipped then can be read now.
    """
    report(VideoNote(kind="begin", shard=task.name))
    if task.previous is not None and (unchanged := _try_again(task, task.previous, report)) is not None:
        return Settling(lambda: unchanged)
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
        report(VideoNote(kind="write", shard=task.name))
        num_bytes, sha256 = writer.close()
        shard = {"name": task.name, "subset": task.subset, "num_samples": writer.num_samples}
        mark: Mark = {
            "members": task.members,
            "fingerprint": task.fingerprint,
            "keep_partial": task.settings.keep_partial,
            "shard": shard | {"num_bytes": num_bytes, "sha256": sha256} if videos else None,
            "videos": videos,
            "skipped": skipped,
            "num_events": sink.num_events,
            "num_event_samples": sink.num_event_samples,
        }
        return Settling(partial(_finish, unfinished.pop_all(), task, mark))


def _finish(unfinished: ExitStack, task: ShardTask, mark: Mark) -> Mark:
    """Wait for the disk: most of it is spent here, and no processor is needed for it."""
    unfinished.close()
    # the mark after the shard: it promises that the shard stands
    write_atomically(task.mark_path, seal(mark))
    return mark


def after_deaths(task: ShardTask, deaths: Sequence[Death]) -> ShardTask:
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


def _video_of(death: Death) -> str | None:
    note = death.note
    return note.video if isinstance(note, VideoNote) and note.kind == "video" else None


def _try_again(task: ShardTask, previous: Mapping[str, Any], report: Report) -> Mark | None:
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
    beat = Beat(task.name, video.video_id, report)
    kind: Literal["done", "skipped"] = "skipped"
    seconds = 0.0
    try:
        refuse_guilty([death for death in task.deaths if _video_of(death) == video.video_id])
        report(VideoNote(kind="video", shard=task.name, video=video.video_id))
        faults.reach("decode", video.video_id)
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
            faults.reach("clip", clip.key)
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
