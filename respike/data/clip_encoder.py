"""Clip encoder: one video to the samples of its clips."""

from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from respike.common.errors import UnreadableVideoError
from respike.data.event_codec import make_planes, residual_events
from respike.data.prepare_config import PrepareConfig
from respike.data.sampling import plan_clips
from respike.data.shard import decode_sample, encode_key_frame, encode_sample, sample_key
from respike.data.video_reader import Beat, Decoding, Frame, Planes, VideoInfo, probe
from respike.types import Clip, ClipInfo, EventClip, VideoRef


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """A clip's sample, ready for the tar, and its events counted."""

    key: str
    members: dict[str, bytes]
    num_events: int
    num_event_samples: int


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """What came of a video: frames decoded, their time in seconds, and, if only a part was decoded, why."""

    num_frames: int
    seconds: float
    partial: str | None


class ClipSink(Protocol):
    """Where the clips of one video go while it is decoded."""

    def add(self, clip: EncodedClip) -> None:
        """Take the next clip."""

    def restart(self) -> None:
        """Forget the clips of this video: they come again, chosen otherwise."""


def encode_video(
    video: VideoRef, settings: PrepareConfig, sink: ClipSink, *, training: bool, beat: Beat
) -> EncodedVideo:
    """Decode a video and hand its clips to `sink` in the order of their indices; `beat` is called as it goes.

    Raises UnreadableVideoError where the video is missing, holds no frame, or, unless `settings.keep_partial`, cannot
    be decoded whole. The sink has then taken clips that do not count.
    """
    if video.path is None:
        raise UnreadableVideoError("missing", "listed, but not on disk")
    source = probe(video.path, beat=beat)
    if source.fault is not None and not settings.keep_partial:
        raise UnreadableVideoError("decode", source.fault)
    num_frames, partial = source.num_packets, source.fault
    # the container may promise frames that do not decode, or hide some: then plan again with the count that stands
    for _ in range(2):
        clips = plan_clips(
            num_frames, settings.clip_sampling, training=training, video_id=video.video_id, seed=settings.seed
        )
        work = _Pass(video, source, clips, settings, sink, beat, is_partial=partial is not None)
        num_decoded, fault = work.run(most=num_frames if partial is not None else None)
        if num_decoded == 0:
            raise fault or UnreadableVideoError("decode", "no frame could be decoded")
        if fault is not None and not settings.keep_partial:
            raise fault
        if num_decoded == num_frames and (fault is None or partial is not None):
            seconds = source.seconds * num_decoded / max(1, source.num_packets)
            return EncodedVideo(num_frames=num_decoded, seconds=seconds, partial=partial)
        num_frames, partial = num_decoded, partial or (None if fault is None else fault.reason)
        sink.restart()
    raise UnreadableVideoError("decode", "two passes gave different numbers of frames")


class _Pass:
    """One pass over a video: turns frames into the parts of clips as they come, and clips into samples."""

    def __init__(
        self,
        video: VideoRef,
        source: VideoInfo,
        clips: list[Clip],
        settings: PrepareConfig,
        sink: ClipSink,
        beat: Beat,
        *,
        is_partial: bool,
    ) -> None:
        self._video, self._source, self._settings, self._sink = video, source, settings, sink
        self._beat, self._is_partial = beat, is_partial
        self._clips = clips
        # in the order in which they begin, so that only clips under way take memory
        self._ahead = deque(sorted(clips, key=lambda clip: clip.frame_indices[0]))
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._parts: dict[int, _ClipParts] = {}
        self._next = 0

    def run(self, most: int | None) -> tuple[int, UnreadableVideoError | None]:
        """Decode the video once, `most` frames of it; return how many came, and the fault that ended it."""
        assert self._video.path is not None
        decoding = Decoding(
            self._video.path, color=self._settings.color, short_side=self._settings.short_side, beat=self._beat
        )
        if most == 0:
            return 0, None
        try:
            for frame in decoding.frames(wanted=self):
                for clip_index, position in self._places.pop(frame.index):
                    self._parts[clip_index].add(frame, position, self._settings)
                self._hand_on()
                if most is not None and decoding.num_frames >= most:
                    break
        except UnreadableVideoError as error:
            return decoding.num_frames, error
        return decoding.num_frames, None

    def __contains__(self, index: object) -> bool:
        """Whether a clip needs the frame of that index; indices are asked for in order."""
        while self._ahead and self._ahead[0].frame_indices[0] == index:
            clip = self._ahead.popleft()
            self._parts[clip.index] = _ClipParts()
            for position, needed in enumerate(clip.frame_indices):
                self._places[needed].append((clip.index, position))
        return index in self._places

    def _hand_on(self) -> None:
        """Encode the clips whose frames have all arrived, in the order of their indices."""
        while (parts := self._parts.get(self._next)) and len(parts.times_seconds) == self._settings.clip_length:
            self._sink.add(self._encode(self._clips[self._next], parts))
            del self._parts[self._next]
            self._next += 1

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
        )


class _ClipParts:
    """What has arrived of one clip."""

    def __init__(self) -> None:
        self.key_frames: list[bytes] = []
        self.times_seconds: list[float] = []
        self.rotation_degrees = 0
        self.event_planes: tuple[NDArray[np.signedinteger[Any]], ...] = ()
        self._key_planes: Planes | None = None

    def add(self, frame: Frame, position: int, settings: PrepareConfig) -> None:
        self.times_seconds.append(frame.time_seconds)
        self.rotation_degrees = frame.rotation_degrees
        group, step = divmod(position, settings.stride)
        if step == 0:
            self._key_planes = frame.planes
            self.key_frames.append(encode_key_frame(frame.planes, settings.color, settings.key_quality))
            return
        assert self._key_planes is not None
        if not self.event_planes:
            num_groups, num_residuals = settings.clip_length // settings.stride, settings.stride - 1
            height, width = frame.planes[0].shape
            self.event_planes = make_planes(
                num_groups, num_residuals, height, width, settings.color, settings.threshold
            )
        for plane, key, events in zip(frame.planes, self._key_planes, self.event_planes, strict=True):
            residual_events(plane, key, settings.threshold, events[group, step - 1])


class ClipTaker(Protocol):
    """Where the clips of one video go."""

    def take(self, clip: EventClip) -> None:
        """Take the next clip."""

    def restart(self) -> None:
        """Forget the clips so far: they come again, chosen otherwise, since the container had promised wrongly."""


def stream_clips(path: Path, settings: PrepareConfig, taker: ClipTaker) -> EncodedVideo:
    """Hand the clips of a video to `taker`, in the order of their indices, chosen as for an evaluation.

    The clips' labels are -1 and their classes empty: a video alone has none. Raises UnreadableVideoError where
    `respike prepare` would skip the video; clips that were handed on before then do not count.
    """
    video = VideoRef(video_id=path.name, path=path, label=-1, class_name="", subset="")
    return encode_video(video, settings, _Decoder(taker), training=False, beat=lambda _: None)


class _Decoder:
    """The sink that decodes what `prepare` would have written."""

    def __init__(self, taker: ClipTaker) -> None:
        self._taker = taker

    def add(self, clip: EncodedClip) -> None:
        self._taker.take(decode_sample(clip.key, clip.members))

    def restart(self) -> None:
        self._taker.restart()
