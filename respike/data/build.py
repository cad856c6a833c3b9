"""Building one shard: its videos → clips → samples in a tar, with a record of what was written and skipped.

This is what a worker runs. It loads no torch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respike.data.decode import Decoding, Frame, VideoInfo, probe
from respike.data.events import residual_events
from respike.data.format import encode_key_frame, encode_sample, sample_key
from respike.data.sampling import plan_clips
from respike.data.settings import PrepareSettings
from respike.data.shards import ShardWriter
from respike.errors import UnreadableVideoError
from respike.files import atomic_writer, canonical_json, write_atomically
from respike.sample import Clip, ClipInfo, VideoRef

_EventPlane = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to build: which videos go in, where it and its finished-mark are written.

    `fingerprint` stands for the settings and the videos, with the size and time of each source file.
    """

    name: str
    subset: str
    training: bool
    videos: tuple[VideoRef, ...]
    settings: PrepareSettings
    path: Path
    mark_path: Path
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SkippedVideo:
    """A listed video that was not written: at which stage it failed and why."""

    video: str
    stage: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """A clip's sample, ready for the tar, and its events counted."""

    key: str
    members: dict[str, bytes]
    num_events: int
    num_event_samples: int


def build_shard(task: ShardTask, report: Callable[[object], None]) -> dict[str, Any]:
    """Write a shard and its finished-mark; return the mark. `report(1)` is called after each video.

    A shard of which no video could be read is not written; its mark is.
    """
    videos: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    num_events = num_event_samples = 0
    task.path.unlink(missing_ok=True)
    with atomic_writer(task.path, keep=lambda: bool(videos)) as file:
        writer = ShardWriter(file)
        for video in task.videos:
            try:
                # the whole video first: a fault at its end must leave nothing of it in the shard
                clips = list(encode_video(video, task.settings, training=task.training))
            except UnreadableVideoError as error:
                skipped.append(asdict(SkippedVideo(video=video.video_id, stage=error.stage, reason=error.reason)))
            else:
                for clip in clips:
                    writer.add(clip.key, clip.members)
                    num_events += clip.num_events
                    num_event_samples += clip.num_event_samples
                videos.append(_video_row(video, task.name, len(clips)))
            report(1)
        num_bytes, sha256 = writer.close()
    shard: dict[str, Any] = {"name": task.name, "subset": task.subset, "num_samples": writer.num_samples}
    shard |= {"num_bytes": num_bytes, "sha256": sha256}
    mark: dict[str, Any] = {
        "fingerprint": task.fingerprint,
        "shard": shard if videos else None,
        "videos": videos,
        "skipped": skipped,
    }
    mark |= {"num_events": num_events, "num_event_samples": num_event_samples}
    # the mark after the shard: it promises that the shard stands
    write_atomically(task.mark_path, canonical_json(mark))
    return mark


def _video_row(video: VideoRef, shard: str, num_clips: int) -> dict[str, Any]:
    return {
        "video": video.video_id,
        "label": video.label,
        "subset": video.subset,
        "group": video.group,
        "shard": shard,
        "num_clips": num_clips,
    }


def encode_video(video: VideoRef, settings: PrepareSettings, *, training: bool) -> Iterator[EncodedClip]:
    """Decode a video and encode its clips, in the order of their indices.

    Raises UnreadableVideoError where the video is missing, cannot be decoded whole, or holds no frame.
    """
    if video.path is None:
        raise UnreadableVideoError("missing", "listed, but not on disk")
    source = probe(video.path)
    num_frames = source.num_packets
    # the container may promise frames that do not decode, or hide some: then plan again with the count that stands
    for _ in range(2):
        clips = plan_clips(
            num_frames,
            settings.clip_sampling,
            training=training,
            video_id=video.video_id,
            seed=settings.seed,
        )
        builder = _ClipBuilder(video, source, clips, settings)
        num_decoded = builder.run(video.path)
        if num_decoded == 0:
            raise UnreadableVideoError("decode", "no frame could be decoded")
        if num_decoded == num_frames:
            yield from builder.finished()
            return
        num_frames = num_decoded
    raise UnreadableVideoError("decode", "two passes gave different numbers of frames")


class _ClipBuilder:
    """Turns frames into the parts of clips as they arrive, so that few frames are held at a time."""

    def __init__(self, video: VideoRef, source: VideoInfo, clips: list[Clip], settings: PrepareSettings) -> None:
        self._video, self._source, self._clips, self._settings = video, source, clips, settings
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for clip in clips:
            for position, index in enumerate(clip.frame_indices):
                self._places[index].append((clip.index, position))
        self._parts = [_ClipParts() for _ in clips]

    def run(self, path: Path) -> int:
        """Decode the video once; return how many frames it has."""
        decoding = Decoding(path, color=self._settings.color, short_side=self._settings.short_side)
        for frame in decoding.frames(wanted=self._places.keys()):
            for clip_index, position in self._places[frame.index]:
                self._parts[clip_index].add(frame, position, self._settings)
        return decoding.num_frames

    def finished(self) -> Iterator[EncodedClip]:
        """Encode the clips whose frames have all arrived."""
        for clip, parts in zip(self._clips, self._parts, strict=True):
            planes = parts.event_planes(self._settings)
            info = self._info(clip, parts)
            key = sample_key(self._video.video_id, clip.index)
            members = encode_sample(parts.key_frames, planes, self._settings.threshold, self._settings.color, info)
            yield EncodedClip(
                key=key,
                members=members,
                num_events=sum(int(np.count_nonzero(plane)) for plane in planes),
                num_event_samples=sum(plane.size for plane in planes),
            )

    def _info(self, clip: Clip, parts: "_ClipParts") -> ClipInfo:
        return ClipInfo(
            video=self._video.video_id,
            label=self._video.label,
            class_name=self._video.class_name,
            subset=self._video.subset,
            group=self._video.group,
            clip_index=clip.index,
            frame_indices=clip.frame_indices,
            times_seconds=tuple(parts.times_seconds),
            num_padded=clip.num_padded,
            width=self._source.width,
            height=self._source.height,
            rotation_degrees=parts.rotation_degrees,
            variable_frame_rate=self._source.variable_frame_rate,
        )


class _ClipParts:
    """What has arrived of one clip."""

    def __init__(self) -> None:
        self.key_frames: list[bytes] = []
        self.times_seconds: list[float] = []
        self.rotation_degrees = 0
        self._key_planes: tuple[NDArray[np.uint8], ...] = ()
        self._events: list[tuple[_EventPlane, ...]] = []

    def add(self, frame: Frame, position: int, settings: PrepareSettings) -> None:
        self.times_seconds.append(frame.time_seconds)
        self.rotation_degrees = frame.rotation_degrees
        if position % settings.stride == 0:
            self._key_planes = frame.planes
            self.key_frames.append(encode_key_frame(frame.planes, settings.color, settings.key_quality))
        else:
            pairs = zip(frame.planes, self._key_planes, strict=True)
            self._events.append(tuple(residual_events(plane, key, settings.threshold) for plane, key in pairs))

    def event_planes(self, settings: PrepareSettings) -> tuple[_EventPlane, ...]:
        """The three planes, `[N, R, H, W]` each."""
        num_residuals = settings.stride - 1
        stacked = (np.stack(planes) for planes in zip(*self._events, strict=True))
        return tuple(plane.reshape(-1, num_residuals, *plane.shape[1:]) for plane in stacked)
