"""Video decoding: a file → frames as 8-bit colour planes, with times and rotation. No other file decodes video.

Decoding is strict: a frame that the decoder calls corrupt, or an error in the stream, makes the whole video
unreadable, so that a half file is never taken for a whole one.
"""

import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from respike.color import Color
from respike.errors import UnreadableVideoError

# the decoder's own complaints go nowhere: what matters of them comes back as an exception
av.logging.set_level(av.logging.PANIC)

# more than 16K x 16K pixels is a damaged or hostile header, not a video
MAX_PIXELS = 1 << 28


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the container says: coded size in pixels, how many packets the stream holds, a lone frame rate or not."""

    width: int
    height: int
    num_packets: int
    variable_frame_rate: bool


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One decoded frame: its index from 0, its time, its three colour planes as uint8, upright and scaled.

    For `ycc` full-range BT.601 Y′ `[H, W]`, Cb and Cr `[ceil(H/2), ceil(W/2)]`; for `rgb` three of `[H, W]`.
    """

    index: int
    time_seconds: float
    planes: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
    rotation_degrees: int


def probe(path: Path) -> VideoInfo:
    """Read the header and walk the packets of a video without decoding it.

    Raises UnreadableVideoError for what is no video: missing, not a regular file, empty, without a video stream.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        _check_size(width, height)
        try:
            times = sorted(p.pts for p in container.demux(stream) if p.size and p.pts is not None)
        except av.error.FFmpegError as error:
            raise UnreadableVideoError("decode", _reason(error)) from error
        steps = np.diff(times)
        # containers with a coarse clock alternate between two neighbouring steps at a constant rate
        variable = bool(len(steps) > 1 and steps.max() > 1.5 * max(float(np.median(steps)), 1.0) + 1)
        return VideoInfo(width=width, height=height, num_packets=len(times), variable_frame_rate=variable)


class Decoding:
    """One pass over a video. `num_frames` counts what has been decoded so far, wanted or not."""

    def __init__(self, path: Path, *, color: Color, short_side: int) -> None:
        self._path, self._color, self._short_side = path, color, short_side
        self.num_frames = 0

    def frames(self, wanted: Collection[int] | None = None) -> Iterator[Frame]:
        """Decode the video and yield its frames in order, those whose index is in `wanted` (None: all).

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
            # `explode` makes the decoder report what it would otherwise conceal
            context.options = {"err_detect": "explode+bitstream+buffer"}
            size: tuple[int, int] | None = None
            # one for the whole video: setting up the scaler costs more than its work on a small frame
            reformatter = VideoReformatter()
            try:
                for frame in container.decode(stream):
                    index, self.num_frames = self.num_frames, self.num_frames + 1
                    if frame.is_corrupt:
                        raise UnreadableVideoError("decode", f"frame {index} is corrupt")
                    if wanted is not None and index not in wanted:
                        continue
                    size = size or _scaled_size(frame.width, frame.height, self._short_side)
                    yield Frame(
                        index=index,
                        time_seconds=round(_time(container, frame, index), 6),
                        planes=_planes(frame, reformatter, size, self._color),
                        rotation_degrees=frame.rotation % 360,
                    )
            except av.error.FFmpegError as error:
                raise UnreadableVideoError("decode", _reason(error)) from error


def _open(path: Path) -> "av.container.InputContainer":
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UnreadableVideoError("missing", error.strerror or "cannot be read") from error
    # opening a FIFO would wait for a writer that never comes
    if not stat.S_ISREG(mode):
        raise UnreadableVideoError("open", "not a regular file")
    if path.stat().st_size == 0:
        raise UnreadableVideoError("open", "the file is empty")
    try:
        # a plain name could be taken for an address (`concat:…`); `file:` reads nothing but this path
        container = av.open(f"file:{path}", mode="r", options={"err_detect": "explode"})
    except (av.error.FFmpegError, ValueError) as error:
        raise UnreadableVideoError("open", _reason(error)) from error
    if not container.streams.video:
        container.close()
        raise UnreadableVideoError("open", "no video stream")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise UnreadableVideoError("open", "no decoder for its codec")
    return container


def _time(container: "av.container.InputContainer", frame: "av.VideoFrame", index: int) -> float:
    """Seconds from the start of the video."""
    rate = container.streams.video[0].average_rate
    # AVI stores no presentation times, and what decoders guess of them runs backwards at B-frames
    if container.format.name == "avi" and rate:
        return index / float(rate)
    return float(frame.time or 0.0)


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise UnreadableVideoError("open", f"its header says {width}x{height} pixels")


def _reason(error: Exception) -> str:
    """One line without the path: paths differ between machines, and what is recorded must not."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0]


def _scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Size whose short side is at most `short_side`; where it shrinks, the long side is even, as 4:2:0 likes it."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    scaled = [short_side if side == short else 2 * round(side * short_side / short / 2) for side in (width, height)]
    return scaled[0], scaled[1]


def _planes(
    frame: "av.VideoFrame", reformatter: VideoReformatter, size: tuple[int, int], color: Color
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Scale in the decoder's own planes, then turn upright."""
    if color == "ycc":
        converted = reformatter.reformat(
            frame,
            *size,
            format="yuvj420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        views = [_plane_view(plane) for plane in converted.planes]
    else:
        pixels: NDArray[Any] = reformatter.reformat(
            frame, *size, format="rgb24", dst_color_range=ColorRange.JPEG, threads=1
        ).to_ndarray()
        views = [pixels[..., channel] for channel in range(3)]
    turns = frame.rotation // 90 % 4
    # contiguous copies: the decoder takes its buffers back with the next frame
    first, second, third = (np.ascontiguousarray(np.rot90(view, turns)) for view in views)
    return first.copy(), second.copy(), third.copy()


def _plane_view(plane: "av.video.plane.VideoPlane") -> NDArray[np.uint8]:
    rows: NDArray[np.uint8] = np.asarray(memoryview(plane)).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
