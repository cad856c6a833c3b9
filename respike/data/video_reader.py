"""Video reader: a video file to frames as 8-bit colour planes, with times and rotation; the only code that decodes."""

import itertools
import math
import stat
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from respike.common.errors import UnreadableVideoError
from respike.data.container import find_cut, find_lost_packets
from respike.types import Color

# messages of the decoder are not printed: what matters comes back as an exception
av.logging.set_level(av.logging.PANIC)

# twice an 8K frame; a header that says more is damaged or hostile
MAX_PIXELS = 1 << 26
_MAX_SIDE = 1 << 15
# for the demuxer and for the decoders that it opens to look into a stream; with `explode` both report damage that they
# would otherwise conceal
_OPTIONS = {"err_detect": "explode+crccheck+bitstream+buffer", "max_pixels": str(MAX_PIXELS)}
# as ffmpeg names them: BT.470 B/G and SMPTE 170M have the matrix of BT.601; 2 is unspecified and is read as BT.601
_BT601_MATRICES = (Colorspace.ITU601, Colorspace.SMPTE170M, 2)
_USUAL_FRAME_RATE = 25
# DV and DVD have pixels of up to 64:45, film scopes of 2:1
_MAX_ASPECT_RATIO = 4
# their decoders begin with the first picture that they can show; others refuse a stream that begins between key frames,
# or show grey pictures until the next one
_SELF_STARTING_CODECS = ("h264", "mpeg1video", "mpeg2video")
# limited range: luma is 16 to 235, chroma 16 to 240 around 128
_LIMITED_MIN = 16
_LUMA_STEPS, _CHROMA_STEPS = 219, 224

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

OnFrames = Callable[[int], None]
"""Called while a video is read, with the number of frames decoded since the last call."""


def _ignore(num_frames: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the container says: coded size in pixels, number of packets that should give a frame, duration.

    `sample_aspect_ratio` is the width of a coded pixel over its height; 1 where unknown. `variable_frame_rate` is True
    where the steps between frames differ. `seconds` is how long the frames are shown. `fault` says what is wrong with
    the file as a whole, None where nothing is.
    """

    width: int
    height: int
    num_packets: int
    variable_frame_rate: bool
    sample_aspect_ratio: Fraction = Fraction(1)
    seconds: float = 0.0
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One decoded frame: index and time from the first frame, and three colour planes, uint8, upright and scaled.

    `is_time_counted` is True if the file holds no usable time for the frame, so that it follows from the frame rate.
    For `ycc` the planes are full-range BT.601: Y′ `[H, W]`, Cb and Cr `[ceil(H/2), ceil(W/2)]`. For `rgb` they are
    three of `[H, W]`. They were mirrored left to right if `mirrored`, then turned counter-clockwise by
    `rotation_degrees`.
    """

    index: int
    time_seconds: float
    is_time_counted: bool
    planes: Planes
    rotation_degrees: int
    mirrored: bool


def probe(path: Path, *, on_frames: OnFrames = _ignore) -> VideoInfo:
    """Read the header and all packets of a video without decoding it; `on_frames` is called at each packet.

    Raises UnreadableVideoError where the file is missing, not a regular file, empty or without a video stream. Damage
    after the header is returned as `fault`.
    """
    with _open(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        _check_size(width, height)
        fault = _find_cut(path, container)
        num_packets = 0
        times: list[int] = []
        waits_for_key = stream.codec_context.name not in _SELF_STARTING_CODECS
        is_joined, runs_backwards, last_dts = False, False, -math.inf
        try:
            for packet in container.demux(stream):
                on_frames(0)
                if packet.is_corrupt and fault is None and not is_joined:
                    fault = _find_damage(path, container, stream, f"packet {num_packets}")
                    is_joined = fault is None
                if waits_for_key and packet.is_keyframe and packet.size:
                    # what came before is not decoded
                    waits_for_key, num_packets, times = False, 0, []
                # an edit list may discard packets after they are decoded
                if packet.size and not packet.is_discard:
                    num_packets += 1
                    if packet.pts is not None:
                        times.append(packet.pts)
                    # where recordings were joined
                    runs_backwards = runs_backwards or (packet.dts is not None and packet.dts < last_dts)
                    last_dts = last_dts if packet.dts is None else packet.dts
        except av.error.FFmpegError as error:
            fault = fault or _reason(error)
        if runs_backwards or len(times) < num_packets:
            # some times have to be counted
            return VideoInfo(
                width=width,
                height=height,
                num_packets=num_packets,
                variable_frame_rate=False,
                sample_aspect_ratio=_read_aspect_ratio(stream),
                seconds=num_packets / _frame_rate(stream),
                fault=fault,
            )
        steps = np.diff(np.sort(np.array(times, np.int64)))
        step = float(np.median(steps)) if len(steps) else 0.0
        # at a constant rate, containers with a coarse clock alternate between two neighbouring steps
        variable = bool(len(steps) > 1 and steps.max() > 1.5 * max(step, 1.0) + 1)
        return VideoInfo(
            width=width,
            height=height,
            num_packets=num_packets,
            variable_frame_rate=variable,
            sample_aspect_ratio=_read_aspect_ratio(stream),
            seconds=(float(steps.sum()) + step) * float(stream.time_base or 0),
            fault=fault,
        )


def check_header(path: Path) -> None:
    """Check only the header of a video and the sizes that it announces. Raises UnreadableVideoError."""
    with _open(path) as (container, stream):
        context = stream.codec_context
        _check_size(context.width, context.height)
        if (fault := _find_cut(path, container)) is not None:
            raise UnreadableVideoError("decode", fault)


def _find_cut(path: Path, container: av.container.InputContainer) -> str | None:
    try:
        return find_cut(path, container.format.name)
    except OSError as error:
        raise UnreadableVideoError("open", error.strerror or "cannot be read") from error


class Decoding:
    """One pass over a video. `num_frames` counts all frames decoded so far.

    Frames are scaled down so that the short side is at most `short_side` pixels. With `square_pixels` their width is
    first scaled by the sample aspect ratio, which players do. `on_frames` is called at each frame.
    """

    def __init__(
        self, path: Path, *, color: Color, short_side: int, square_pixels: bool = False, on_frames: OnFrames = _ignore
    ) -> None:
        self._path, self._color, self._short_side, self._beat = path, color, short_side, on_frames
        self._square_pixels = square_pixels
        self.num_frames = 0

    def frames(self, wanted: Container[int] | None = None) -> Iterator[Frame]:
        """Decode the video and yield its frames in order, upright, those whose index is in `wanted` (None: all).

        `wanted` is asked once for each index, in order. All frames are decoded, wanted or not, so that damage anywhere
        is found. Raises UnreadableVideoError at the first fault.
        """
        with _open(self._path) as (container, stream):
            context = stream.codec_context
            _check_size(context.width, context.height)
            # one thread for each video: workers run in parallel, and frame threads would delay errors
            context.thread_count = 1
            context.options = _OPTIONS
            aspect_ratio = _read_aspect_ratio(stream) if self._square_pixels else Fraction(1)
            _check_size(round(context.width * aspect_ratio), context.height)
            converter = FrameConverter(self._color, self._short_side, aspect_ratio)
            clock = _Clock(container, stream)
            is_joined = False
            rotation: int | None = None
            orientation = _UPRIGHT
            packets = container.demux(stream)
            try:
                if context.name not in _SELF_STARTING_CODECS:
                    packets = _from_first_key(packets, self._path)
                for frame in itertools.chain.from_iterable(packet.decode() for packet in packets):
                    if frame.is_corrupt and not is_joined:
                        if damage := _find_damage(self._path, container, stream, f"frame {self.num_frames}"):
                            raise UnreadableVideoError("decode", damage)
                        is_joined = True
                    index, self.num_frames = self.num_frames, self.num_frames + 1
                    self._beat(1)
                    seconds, is_counted = clock.read(frame)
                    if wanted is not None and index not in wanted:
                        continue
                    # read only where the turn changes: a frame whose side data were read is freed late
                    if frame.rotation != rotation:
                        rotation, orientation = frame.rotation, read_orientation(frame)
                    yield Frame(
                        index=index,
                        time_seconds=seconds,
                        is_time_counted=is_counted,
                        planes=orientation.apply(converter.convert(frame)),
                        rotation_degrees=90 * orientation.num_quarter_turns,
                        mirrored=orientation.mirrored,
                    )
            except av.error.FFmpegError as error:
                raise UnreadableVideoError("decode", _reason(error)) from error


def _find_damage(path: Path, container: av.container.InputContainer, stream: av.VideoStream, what: str) -> str | None:
    """Return what is wrong with a packet or frame that ffmpeg calls corrupt; None where nothing is."""
    if container.format.name != "mpegts":
        return f"{what} is corrupt"
    # ffmpeg also says so where a counter jumps
    try:
        lost = find_lost_packets(path, stream.id)
    except OSError as error:
        raise UnreadableVideoError("read", error.strerror or "cannot be read") from error
    return None if lost is None else f"{what} is corrupt: {lost}"


def _from_first_key(packets: Iterator[Any], path: Path) -> Iterator[Any]:
    """Yield packets from the first key frame on: all of them if the first is one, or if the file at `path` has none."""
    is_skipping: bool | None = None
    for packet in packets:
        if is_skipping is None:
            is_skipping = bool(packet.size) and not packet.is_keyframe and _has_key_frame(path)
        is_skipping = is_skipping and not packet.is_keyframe
        if not is_skipping:
            yield packet


def _has_key_frame(path: Path) -> bool:
    with _open(path) as (container, stream):
        return any(packet.is_keyframe for packet in container.demux(stream) if packet.size)


class _Clock:
    """Gives the frames of one video their times in seconds from the first frame; each is later than the one before."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._num_per_second = _frame_rate(stream)
        # AVI stores no presentation times, and those that decoders guess run backwards at B-frames. It stores when a
        # frame is decoded, in units of its frame rate, and players show it then.
        self._is_avi = container.format.name == "avi"
        self._units_per_second = float(1 / stream.time_base) if self._is_avi and stream.time_base else 1.0
        # an MPEG-TS begins at 1.4 s or anywhere, other files before 0
        self._start: float | None = None
        self._last: float | None = None
        # frames are counted from the last one with a usable time
        self._counted_from, self._num_counted = 0.0, 0

    def read(self, frame: av.VideoFrame) -> tuple[float, bool]:
        """Return the time of the next frame, rounded to microseconds, and whether it follows from the frame rate."""
        stored = frame.dts if self._is_avi else frame.time
        if self._last is None:
            next_counted = 0.0
        else:
            self._num_counted += 1
            next_counted = self._counted_from + self._num_counted / self._num_per_second
        seconds = None
        if stored is not None:
            if self._start is None:
                self._start = stored - next_counted * self._units_per_second
            seconds = (stored - self._start) / self._units_per_second
        if seconds is not None and (self._last is None or seconds > self._last):
            self._counted_from, self._num_counted, self._last = seconds, 0, seconds
            return round(seconds, 6), False
        # no time, or it runs backwards, as where recordings are joined
        self._last = next_counted
        # all times of an AVI are counts, so nothing is unusual about one at its end
        return round(next_counted, 6), not self._is_avi


def _frame_rate(stream: av.VideoStream) -> float:
    """Return the frames per second that the container says, else the number that ffmpeg takes for raw streams."""
    return float(stream.average_rate or stream.guessed_rate or _USUAL_FRAME_RATE)


@dataclass(frozen=True)
class Orientation:
    """How coded pictures become upright: mirrored left to right if `mirrored`, then turned counter-clockwise."""

    num_quarter_turns: int = 0
    mirrored: bool = False

    def apply(self, planes: Planes) -> Planes:
        """Return the planes as they are shown; the same arrays if nothing is to be done."""
        if self == _UPRIGHT:
            return planes
        sources = [plane[:, ::-1] if self.mirrored else plane for plane in planes]
        first, second, third = (np.ascontiguousarray(np.rot90(each, self.num_quarter_turns)) for each in sources)
        return first, second, third


_UPRIGHT = Orientation()


def read_orientation(frame: av.VideoFrame) -> Orientation:
    """Return the orientation that the display matrix of a frame asks for; other angles count as the nearest right one.

    The matrix maps a coded point to (a·x + c·y, b·x + d·y), with y pointing down. Source: libavutil/display.h.
    """
    # `frame.rotation` does not say whether the matrix mirrors
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _UPRIGHT
    a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32)[:5])
    mirrored = a * d - b * c < 0
    if mirrored:
        # without the mirror that comes first
        a, b = -a, -b
    if abs(a) >= abs(b):
        return Orientation(2 if a < 0 else 0, mirrored)
    return Orientation(1 if b < 0 else 3, mirrored)


class FrameConverter:
    """Converts the frames of one video to coded planes of at most `short_side` pixels.

    Their width is first scaled by `aspect_ratio`. Otherwise frames are never scaled up.
    """

    def __init__(self, color: Color, short_side: int, aspect_ratio: Fraction = Fraction(1)) -> None:
        self._color, self._short_side, self._aspect_ratio = color, short_side, aspect_ratio
        self._size: tuple[int, int] | None = None
        # one for the whole video: to set up a scaler costs more than to scale a small frame
        self._reformatter = VideoReformatter()
        self._limited_min: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def convert(self, frame: av.VideoFrame) -> Planes:
        """Return three planes that share no memory with the decoder, which reuses its buffers for the next frame."""
        # the first frame decides for the video, so that all frames of a clip have one size
        if self._size is None:
            width = max(1, round(frame.width * self._aspect_ratio))
            self._size = scaled_size(width, frame.height, self._short_side)
        if self._color == "ycc" and _needs_no_scaler(frame, self._size):
            luma, blue, red = map(_plane_view, frame.planes)
            planes = _copy(luma, blue, red) if _is_full_range(frame) else self._to_full_range(luma, blue, red)
        elif self._color == "ycc":
            scaled = self._reformatter.reformat(
                frame,
                *self._size,
                format="yuvj420p",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
            planes = _copy(*map(_plane_view, scaled.planes))
        else:
            pixels: NDArray[Any] = self._reformatter.reformat(
                frame, *self._size, format="rgb24", dst_color_range=ColorRange.JPEG, threads=1
            ).to_ndarray()
            planes = _copy(*(pixels[..., channel] for channel in range(3)))
        return planes

    def _to_full_range(self, luma: NDArray[np.uint8], blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> Planes:
        """Convert limited range to full range, rounded; values out of range are clipped."""
        # neutral chroma, 128, is 112 of 224 steps and must stay 128
        return (
            self._stretch(luma, _LUMA_STEPS, 0.0),
            self._stretch(blue, _CHROMA_STEPS, 0.5),
            self._stretch(red, _CHROMA_STEPS, 0.5),
        )

    def _stretch(self, plane: NDArray[np.uint8], num_steps: int, offset: float) -> NDArray[np.uint8]:
        if (minimum := self._limited_min.get(plane.shape)) is None:
            # a whole plane: OpenCV takes three times as long to subtract a single number
            minimum = self._limited_min[plane.shape] = np.full(plane.shape, _LIMITED_MIN, np.uint8)
        # subtracted as bytes: then no value to round is near a half, and every machine rounds the same
        steps = cv2.subtract(plane, minimum)
        # in place: for planes this small, a new array costs more than the arithmetic
        return np.asarray(cv2.convertScaleAbs(steps, dst=steps, alpha=255 / num_steps, beta=offset), np.uint8)


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return (width, height) with a short side of at most `short_side`; a scaled long side is even, for 4:2:0."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    scaled = [short_side if side == short else 2 * round(side * short_side / short / 2) for side in (width, height)]
    return scaled[0], scaled[1]


def _needs_no_scaler(frame: av.VideoFrame, size: tuple[int, int]) -> bool:
    return (
        frame.format.name in ("yuv420p", "yuvj420p")
        and (frame.width, frame.height) == size
        and frame.colorspace in _BT601_MATRICES
    )


def _is_full_range(frame: av.VideoFrame) -> bool:
    return bool(frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG)


def _copy(*views: NDArray[np.uint8]) -> Planes:
    first, second, third = (view.copy(order="C") for view in views)
    return first, second, third


def _plane_view(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    rows: NDArray[np.uint8] = np.asarray(memoryview(plane)).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


@contextmanager
def _open(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file; give its container and the video stream that players show. Raises UnreadableVideoError."""
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableVideoError("missing", error.strerror or "cannot be read") from error
    # to open a FIFO would block until somebody writes to it
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideoError("open", "not a regular file")
    if status.st_size == 0:
        raise UnreadableVideoError("open", "the file is empty")
    try:
        # a plain name could be read as an address (`concat:…`); with `file:` only this path is opened
        container = av.open(f"file:{path}", mode="r", options=_OPTIONS)
    except (av.error.FFmpegError, ValueError) as error:
        raise UnreadableVideoError("open", _reason(error)) from error
    with container:
        yield container, _choose_stream(container)


def _choose_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Return the stream flagged default; of several, or of none, that with the largest pictures, as ffmpeg does."""
    if not container.streams.video:
        raise UnreadableVideoError("open", "no video stream")
    # the cover of a song or a film is a picture, not a video
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise UnreadableVideoError("open", "no video stream, only an attached picture")

    def rank(stream: av.VideoStream) -> tuple[bool, int]:
        context = stream.codec_context
        num_pixels = 0 if context is None else context.width * context.height
        return bool(stream.disposition & Disposition.default), num_pixels

    # `max` keeps the first of equals
    chosen = max(streams, key=rank)
    if chosen.codec_context is None:
        raise UnreadableVideoError("open", "no decoder for its codec")
    return chosen


def _read_aspect_ratio(stream: av.VideoStream) -> Fraction:
    """Return the width of a coded pixel over its height; 1 where it is unknown, or too extreme to be meant."""
    ratio = stream.sample_aspect_ratio
    return ratio if ratio and 1 / _MAX_ASPECT_RATIO <= ratio <= _MAX_ASPECT_RATIO else Fraction(1)


def _check_size(width: int, height: int) -> None:
    if min(width, height) <= 0 or max(width, height) > _MAX_SIDE or width * height > MAX_PIXELS:
        raise UnreadableVideoError("open", f"its header says {width}x{height} pixels")


def _reason(error: Exception) -> str:
    """Return one line without the path: it is recorded, and paths differ between machines."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0]
