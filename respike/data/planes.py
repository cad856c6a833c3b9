"""Planes: a decoded frame → its three 8-bit colour planes, scaled, upright, in one colour convention.

A frame in the usual form (4:2:0, BT.601, not scaled) is brought to full range here, plane by plane; every other one
goes through ffmpeg's scaler, which takes several times as long over it.
"""

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from respike.color import Color

if TYPE_CHECKING:
    import av

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

# as ffmpeg names them: unspecified, BT.470 B/G and SMPTE 170M; the last two are BT.601's matrix, the first is taken so
_BT601_MATRICES = (Colorspace.ITU601, Colorspace.SMPTE170M, 2)
# limited range: luma 16 to 235, chroma 16 to 240 about 128
_LOWEST = 16
_LUMA_STEPS, _CHROMA_STEPS = 219, 224


class PlaneMaker:
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
