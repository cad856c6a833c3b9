"""Clip encoder: one video to the samples of its clips, in one pass and with few clips in memory."""

from collections import defaultdict, deque
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from respike.common.errors import UnreadableVideoError
from respike.data.event_codec import Events, allocate_planes, residual_events
from respike.data.prepare_config import PrepareConfig
from respike.data.sampling import plan_clips
from respike.data.shard import decode_members, encode_key_frame, encode_sample, sample_key
from respike.data.video_reader import Decoding, Frame, OnFrames, Planes, VideoInfo, probe
from respike.types import Clip, ClipInfo, EventClip, VideoRef


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """The sample of a clip, ready for the shard, and how many of its event samples are not zero."""

    key: str
    members: dict[str, bytes]
    num_events: int
    num_event_samples: int


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """Frames decoded of a video, their duration in seconds, and why only a part was decoded (None: all was).

    `sample_aspect_ratio` is width:height of a coded pixel.
    """

    num_frames: int
    seconds: float
    partial: str | None
    sample_aspect_ratio: str


class ClipSink(Protocol):
    """Takes the clips of one video while it is decoded."""

    def add(self, clip: EncodedClip) -> None:
        """Take the next clip."""

    def restart(self) -> None:
        """Forget the clips of this video: they come again, since it has another number of frames than announced."""


class ClipTaker(Protocol):
    """Takes the decoded clips of one video."""

    def take(self, clip: EventClip) -> None:
        """Take the next clip."""

    def restart(self) -> None:
        """Forget the clips of this video: they come again, since it has another number of frames than announced."""


def encode_video(
    video: VideoRef, settings: PrepareConfig, sink: ClipSink, *, training: bool, on_frames: OnFrames
) -> EncodedVideo:
    """Decode a video and give its clips to `sink` in the order of their indices; `on_frames` is called at each frame.

    Raises UnreadableVideoError where the video is missing, has no frames, or, unless `settings.keep_partial`, cannot be
    decoded completely. Clips that `sink` has got by then do not count.
    """
    if video.path is None:
        raise UnreadableVideoError("missing", "listed, but not on disk")
    source = probe(video.path, on_frames=on_frames)
    if source.fault is not None and not settings.keep_partial:
        raise UnreadableVideoError("decode", source.fault)
    num_frames, partial = source.num_packets, source.fault
    # the container may announce too many frames or too few: then choose clips again, from the decoded number
    for _ in range(2):
        clips = plan_clips(
            num_frames, settings.clip_sampling, training=training, video_id=video.video_id, seed=settings.seed
        )
        builder = _ClipBuilder(video, source, clips, settings, sink, is_partial=partial is not None)
        num_decoded, fault = builder.decode(on_frames, max_frames=num_frames if partial is not None else None)
        if num_decoded == 0:
            raise fault or UnreadableVideoError("decode", "no frame could be decoded")
        if fault is not None and not settings.keep_partial:
            raise fault
        if num_decoded == num_frames and (fault is None or partial is not None):
            seconds = source.seconds * num_decoded / max(1, source.num_packets)
            return EncodedVideo(
                num_frames=num_decoded,
                seconds=seconds,
                partial=partial,
                sample_aspect_ratio=format_ratio(source.sample_aspect_ratio),
            )
        num_frames, partial = num_decoded, partial or (None if fault is None else fault.reason)
        sink.restart()
    raise UnreadableVideoError("decode", "two passes gave different numbers of frames")


def format_ratio(ratio: Fraction) -> str:
    """Return a ratio as text, such as `64:45`."""
    return f"{ratio.numerator}:{ratio.denominator}"


def stream_clips(path: Path, settings: PrepareConfig, taker: ClipTaker) -> EncodedVideo:
    """Give the clips of a video to `taker`, in the order of their indices, chosen as for an evaluation.

    Labels are -1 and class names empty. Raises UnreadableVideoError where `respike prepare` would skip the video; clips
    that `taker` has got by then do not count.
    """
    video = VideoRef(video_id=path.name, path=path, label=-1, class_name="", subset="")
    return encode_video(video, settings, _DecodingSink(taker), training=False, on_frames=lambda _: None)


class _DecodingSink:
    """A ClipSink that decodes what `prepare` would write."""

    def __init__(self, taker: ClipTaker) -> None:
        self._taker = taker

    def add(self, clip: EncodedClip) -> None:
        self._taker.take(decode_members(clip.key, clip.members))

    def restart(self) -> None:
        self._taker.restart()


class _ClipBuilder:
    """Builds the clips of one pass over a video, frame by frame, and gives them to a sink."""

    def __init__(
        self,
        video: VideoRef,
        source: VideoInfo,
        clips: list[Clip],
        settings: PrepareConfig,
        sink: ClipSink,
        *,
        is_partial: bool,
    ) -> None:
        self._video, self._source, self._settings, self._sink = video, source, settings, sink
        self._clips, self._is_partial = clips, is_partial
        # in the order of their first frames, so that only clips that have begun take memory
        self._waiting = deque(sorted(clips, key=lambda clip: clip.frame_indices[0]))
        # frame index → (clip index, position in the clip) of the clips that have begun
        self._needed_by: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._parts: dict[int, _ClipParts] = {}
        self._next_clip = 0

    def decode(self, on_frames: OnFrames, max_frames: int | None) -> tuple[int, UnreadableVideoError | None]:
        """Decode at most `max_frames` frames; return how many were decoded, and the fault that ended it."""
        assert self._video.path is not None
        decoding = Decoding(
            self._video.path,
            color=self._settings.color,
            short_side=self._settings.short_side,
            square_pixels=self._settings.square_pixels,
            on_frames=on_frames,
        )
        if max_frames == 0:
            return 0, None
        try:
            for frame in decoding.frames(wanted=self):
                for clip_index, position in self._needed_by.pop(frame.index):
                    self._parts[clip_index].add(frame, position, self._settings)
                self._flush()
                if max_frames is not None and decoding.num_frames >= max_frames:
                    break
        except UnreadableVideoError as error:
            return decoding.num_frames, error
        return decoding.num_frames, None

    def __contains__(self, index: object) -> bool:
        """Return whether a clip needs the frame; the decoder asks once for each index, in order."""
        while self._waiting and self._waiting[0].frame_indices[0] == index:
            clip = self._waiting.popleft()
            self._parts[clip.index] = _ClipParts()
            for position, needed in enumerate(clip.frame_indices):
                self._needed_by[needed].append((clip.index, position))
        return index in self._needed_by

    def _flush(self) -> None:
        """Give the complete clips to the sink, in the order of their indices."""
        while (parts := self._parts.get(self._next_clip)) and len(parts.times_seconds) == self._settings.clip_length:
            self._sink.add(self._encode(self._clips[self._next_clip], parts))
            del self._parts[self._next_clip]
            self._next_clip += 1

    def _encode(self, clip: Clip, parts: "_ClipParts") -> EncodedClip:
        planes = parts.event_planes
        return EncodedClip(
            key=sample_key(self._video.video_id, clip.index),
            members=encode_sample(
                parts.key_frames, planes, self._settings.threshold, self._settings.color, self._info(clip, parts)
            ),
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
            partial=self._is_partial,
            mirrored=parts.mirrored,
            counted_times=parts.counted_times,
            sample_aspect_ratio=format_ratio(self._source.sample_aspect_ratio),
        )


class _ClipParts:
    """What is decoded of one clip so far."""

    def __init__(self) -> None:
        self.key_frames: list[bytes] = []
        self.times_seconds: list[float] = []
        self.rotation_degrees = 0
        self.mirrored = False
        self.counted_times = False
        self.event_planes: tuple[Events, ...] = ()
        self._key_planes: Planes | None = None

    def add(self, frame: Frame, position: int, settings: PrepareConfig) -> None:
        self.times_seconds.append(frame.time_seconds)
        self.rotation_degrees, self.mirrored = frame.rotation_degrees, frame.mirrored
        self.counted_times = self.counted_times or frame.is_time_counted
        group, step = divmod(position, settings.stride)
        if step == 0:
            self._key_planes = frame.planes
            self.key_frames.append(encode_key_frame(frame.planes, settings.color, settings.key_quality))
            return
        assert self._key_planes is not None
        if not self.event_planes:
            num_groups, num_residuals = settings.clip_length // settings.stride, settings.stride - 1
            height, width = frame.planes[0].shape
            self.event_planes = allocate_planes(
                num_groups, num_residuals, height, width, settings.color, settings.threshold
            )
        for plane, key, events in zip(frame.planes, self._key_planes, self.event_planes, strict=True):
            residual_events(plane, key, settings.threshold, events[group, step - 1])
