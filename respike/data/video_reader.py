"""Video reader: a file to frames as 8-bit colour planes, with times and rotation. Nothing else decodes video."""

import stat
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import av.error
import av.logging
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from respike.common.errors import UnreadableVideoError
from respike.data.container import find_cut
from respike.types import Color

if TYPE_CHECKING:
    import av


Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

# as ffmpeg names them: unspecified, BT.470 B/G and SMPTE 170M; the last two are BT.601's matrix, the first is taken so
_BT601_MATRICES = (Colorspace.ITU601, Colorspace.SMPTE170M, 2)
# limited range: luma 16 to 235, chroma 16 to 240 about 128
_LOWEST = 16
_LUMA_STEPS, _CHROMA_STEPS = 219, 224


class FrameConverter:
    """Makes the planes of one video's frames; `short_side` is the most pixels of the short side, never scaled up."""

    def __init__(self, color: Color, short_side: int) -> None:
        self._color, self._short_side = color, short_side
        self._size: tuple[int, int] | None = None
        # one for the whole video: setting up the scaler costs more than its work on a small frame
        self._reformatter = VideoReformatter()
        self._lowest: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def planes(self, frame: "av.VideoFrame") -> Planes:
        """Three planes that are the caller's own: the decoder takes its buffers back with the next frame."""
        # the first frame decides for the video, so that all of a clip are of one size
        self._size = self._size or scaled_size(frame.width, frame.height, self._short_side)
        if self._color == "ycc" and _is_usual(frame, self._size):
            first, second, third = map(_plane_view, frame.planes)
            ours = (_copied if _is_full_range(frame) else self._stretched)(first, second, third)
        elif self._color == "ycc":
            ours = _copied(*(_plane_view(plane) for plane in self._to_ycc(frame, self._size).planes))
        else:
            pixels: NDArray[Any] = self._reformatter.reformat(
                frame, *self._size, format="rgb24", dst_color_range=ColorRange.JPEG, threads=1
            ).to_ndarray()
            ours = _copied(*(pixels[..., channel] for channel in range(3)))
        turns = frame.rotation // 90 % 4
        if not turns:
            return ours
        upright = [np.ascontiguousarray(np.rot90(plane, turns)) for plane in ours]
        return upright[0], upright[1], upright[2]

    def _stretched(self, luma: NDArray[np.uint8], blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> Planes:
        """Bring limited range to full range, rounded; values outside of the limits are cut off."""
        # neutral chroma, 128, is 112 of 224 steps up and must come out as 128 again
        return (
            self._spread(luma, _LUMA_STEPS, 0.0),
            self._spread(blue, _CHROMA_STEPS, 0.5),
            self._spread(red, _CHROMA_STEPS, 0.5),
        )

    def _spread(self, plane: NDArray[np.uint8], num_steps: int, offset: float) -> NDArray[np.uint8]:
        if (lowest := self._lowest.get(plane.shape)) is None:
            # a whole plane of it: OpenCV takes three times as long to subtract one number
            lowest = self._lowest[plane.shape] = np.full(plane.shape, _LOWEST, np.uint8)
        # on bytes first, so that what is left to round lies clear of halves and no machine rounds it otherwise
        steps = cv2.subtract(plane, lowest)
        # in place: for planes this small, a fresh one costs more than the arithmetic
        return np.asarray(cv2.convertScaleAbs(steps, dst=steps, alpha=255 / num_steps, beta=offset), np.uint8)

    def _to_ycc(self, frame: "av.VideoFrame", size: tuple[int, int]) -> "av.VideoFrame":
        return self._reformatter.reformat(
            frame,
            *size,
            format="yuvj420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Size whose short side is at most `short_side`; where it shrinks, the long side is even, as 4:2:0 likes it."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    scaled = [short_side if side == short else 2 * round(side * short_side / short / 2) for side in (width, height)]
    return scaled[0], scaled[1]


def _is_usual(frame: "av.VideoFrame", size: tuple[int, int]) -> bool:
    return (
        frame.format.name in ("yuv420p", "yuvj420p")
        and (frame.width, frame.height) == size
        and frame.colorspace in _BT601_MATRICES
    )


def _is_full_range(frame: "av.VideoFrame") -> bool:
    return bool(frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG)


def _copied(*views: NDArray[np.uint8]) -> Planes:
    first, second, third = (view.copy(order="C") for view in views)
    return first, second, third


def _plane_view(plane: "av.video.plane.VideoPlane") -> NDArray[np.uint8]:
    rows: NDArray[np.uint8] = np.asarray(memoryview(plane)).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


# the decoder's own complaints go nowhere: what matters of them comes back as an exception
av.logging.set_level(av.logging.PANIC)

# twice an 8K frame; more is a damaged or hostile header, not a video
MAX_PIXELS = 1 << 26
_MAX_SIDE = 1 << 15
# for the demuxer, and for the decoders that it opens to look into a stream; `explode` makes either report what it
# would otherwise conceal
_OPTIONS = {"err_detect": "explode+crccheck+bitstream+buffer", "max_pixels": str(MAX_PIXELS)}


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the container says: coded size in pixels, packets that should give a frame, a lone frame rate or not.

    `seconds` is how long the frames are shown; `fault` what is wrong with the file as a whole, None where nothing is.
    """

    width: int
    height: int
    num_packets: int
    variable_frame_rate: bool
    seconds: float = 0.0
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One decoded frame: its index and time from the first one, its three colour planes as uint8, upright and scaled.

    For `ycc` full-range BT.601 Y′ `[H, W]`, Cb and Cr `[ceil(H/2), ceil(W/2)]`; for `rgb` three of `[H, W]`.
    """

    index: int
    time_seconds: float
    planes: Planes
    rotation_degrees: int


Beat = Callable[[int], None]
"""Called while a video is gone through, with the number of frames decoded since the last call."""


def _ignore(num_frames: int) -> None:
    pass


def probe(path: Path, *, beat: Beat = _ignore) -> VideoInfo:
    """Read the header and walk the packets of a video without decoding it; `beat` is called at each.

    Raises UnreadableVideoError for what is no video: missing, not a regular file, empty, without a video stream. What
    is wrong further in is told as `fault`.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        _check_size(width, height)
        fault = _find_cut(path, container)
        num_packets, times = 0, []
        try:
            for packet in container.demux(stream):
                beat(0)
                if packet.is_corrupt:
                    fault = fault or f"packet {num_packets} is corrupt"
                # an edit list may throw packets away after they are decoded
                if packet.size and not packet.is_discard:
                    num_packets += 1
                    if packet.pts is not None:
                        times.append(packet.pts)
        except av.error.FFmpegError as error:
            fault = fault or _reason(error)
        steps = np.diff(np.sort(np.array(times, np.int64)))
        step = float(np.median(steps)) if len(steps) else 0.0
        # containers with a coarse clock alternate between two neighbouring steps at a constant rate
        variable = bool(len(steps) > 1 and steps.max() > 1.5 * max(step, 1.0) + 1)
        return VideoInfo(
            width=width,
            height=height,
            num_packets=num_packets,
            variable_frame_rate=variable,
            seconds=(float(steps.sum()) + step) * float(stream.time_base or 0),
            fault=fault,
        )


def check_header(path: Path) -> None:
    """Open a video and look at its header and at the sizes it announces, no more. Raises UnreadableVideoError."""
    with _open(path) as container:
        context = container.streams.video[0].codec_context
        _check_size(context.width, context.height)
        if (fault := _find_cut(path, container)) is not None:
            raise UnreadableVideoError("decode", fault)


def _find_cut(path: Path, container: "av.container.InputContainer") -> str | None:
    try:
        return find_cut(path, container.format.name)
    except OSError as error:
        raise UnreadableVideoError("open", error.strerror or "cannot be read") from error


class Decoding:
    """One pass over a video. `num_frames` counts what has been decoded so far, wanted or not."""

    def __init__(self, path: Path, *, color: Color, short_side: int, beat: Beat = _ignore) -> None:
        self._path, self._color, self._short_side, self._beat = path, color, short_side, beat
        self.num_frames = 0

    def frames(self, wanted: Container[int] | None = None) -> Iterator[Frame]:
        """Decode the video and yield its frames in order, those whose index is in `wanted` (None: all).

        `wanted` is asked once for each index, in order; `beat` is called at each frame.

        All frames are decoded, wanted or not, so that damage anywhere is found. Frames are scaled so that the short
        side is at most `short_side` pixels, never up, and turned upright. Raises UnreadableVideoError at the first
        fault.
        """
        with _open(self._path) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            _check_size(context.width, context.height)
            # one thread a video: the parallel unit is the worker, and frame threads would delay the errors
            context.thread_count = 1
            context.options = _OPTIONS
            maker = FrameConverter(self._color, self._short_side)
            # AVI stores no presentation times, and what decoders guess of them runs backwards at B-frames
            counted_rate = float(stream.average_rate or 0) if container.format.name == "avi" else 0.0
            # an MPEG-TS begins at 1.4 s or anywhere, other files before 0: the first frame that is shown is the start
            start: float | None = None
            try:
                for frame in container.decode(stream):
                    if frame.is_corrupt:
                        raise UnreadableVideoError("decode", f"frame {self.num_frames} is corrupt")
                    index, self.num_frames = self.num_frames, self.num_frames + 1
                    self._beat(1)
                    if start is None:
                        start = frame.time
                    if wanted is not None and index not in wanted:
                        continue
                    seconds = 0.0 if frame.time is None or start is None else frame.time - start
                    yield Frame(
                        index=index,
                        time_seconds=round(index / counted_rate if counted_rate else seconds, 6),
                        planes=maker.planes(frame),
                        rotation_degrees=frame.rotation % 360,
                    )
            except av.error.FFmpegError as error:
                raise UnreadableVideoError("decode", _reason(error)) from error


def _open(path: Path) -> "av.container.InputContainer":
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableVideoError("missing", error.strerror or "cannot be read") from error
    # opening a FIFO would wait for a writer that never comes
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideoError("open", "not a regular file")
    if status.st_size == 0:
        raise UnreadableVideoError("open", "the file is empty")
    try:
        # a plain name could be taken for an address (`concat:…`); `file:` reads nothing but this path
        container = av.open(f"file:{path}", mode="r", options=_OPTIONS)
    except (av.error.FFmpegError, ValueError) as error:
        raise UnreadableVideoError("open", _reason(error)) from error
    if not container.streams.video:
        container.close()
        raise UnreadableVideoError("open", "no video stream")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise UnreadableVideoError("open", "no decoder for its codec")
    return container


def _check_size(width: int, height: int) -> None:
    if min(width, height) <= 0 or max(width, height) > _MAX_SIDE or width * height > MAX_PIXELS:
        raise UnreadableVideoError("open", f"its header says {width}x{height} pixels")


def _reason(error: Exception) -> str:
    """One line without the path: paths differ between machines, and what is recorded must not."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0]
