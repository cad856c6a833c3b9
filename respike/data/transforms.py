"""Transforms: crop, flip and resize of key frames and events together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from respike.types import CROP_SCALE, CROP_SIDES, EventClip

_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10
# in quarters of the free space: corners, middles of edges, the centre, and the points between centre and corners
_POSITIONS = tuple((down, right) for down in range(5) for right in range(5) if down % 2 == right % 2)

# OpenCV resizes one picture of four channels in half the time of four pictures, with equal results; for other numbers
# of channels above one it takes another path, which is twice as slow
_NUM_CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class View:
    """A rectangle of the stored frame, in pixels of luma; `flip` mirrors it left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def random_view(
    height: int, width: int, generator: np.random.Generator, *, flip: bool, scale: tuple[float, float] = CROP_SCALE
) -> View:
    """Draw a random resized crop on even pixels and, if `flip`, mirror it with chance ½.

    `scale` is the range of the crop's share of the area; the aspect ratio is from 3:4 to 4:3.

    Source: Szegedy et al., Going Deeper with Convolutions, section 6.
    """
    mirrored = flip and bool(generator.random() < 0.5)
    for _ in range(_ATTEMPTS):
        area = height * width * generator.uniform(*scale)
        ratio = math.exp(generator.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        crop_width, crop_height = _even(math.sqrt(area * ratio)), _even(math.sqrt(area / ratio))
        if 2 <= crop_width <= width and 2 <= crop_height <= height:
            top = 2 * int(generator.integers(0, (height - crop_height) // 2 + 1))
            left = 2 * int(generator.integers(0, (width - crop_width) // 2 + 1))
            return View(top=top, left=left, height=crop_height, width=crop_width, flip=mirrored)
    return replace(centre_view(height, width), flip=mirrored)


def multi_scale_view(
    height: int, width: int, generator: np.random.Generator, *, flip: bool, sides: Sequence[float] = CROP_SIDES
) -> View:
    """Draw a multi-scale crop at one of thirteen positions and, if `flip`, mirror it with chance ½.

    Height and width are each one of `sides`, shares of the frame's short side; their indices in `sides` differ by at
    most one. The positions are quarters of the way from edge to edge.

    Source: Wang et al., Temporal Segment Networks (corner cropping and scale jittering), with the pairs and positions
    of their published code; sizes and positions are rounded down to even pixels.
    """
    mirrored = flip and bool(generator.random() < 0.5)
    # one of the pairs whose indices differ by at most one: (0,0) (0,1) (1,0) (1,1) (1,2) …
    index, kind = divmod(int(generator.integers(0, 3 * len(sides) - 2)), 3)
    height_index, width_index = index + (kind == 2), index + (kind == 1)
    short = min(height, width)
    crop_height, crop_width = (max(2, int(short * sides[side]) // 2 * 2) for side in (height_index, width_index))
    down, right = _POSITIONS[int(generator.integers(0, len(_POSITIONS)))]
    top, left = (height - crop_height) // 2 * down // 4 * 2, (width - crop_width) // 2 * right // 4 * 2
    return View(top=top, left=left, height=crop_height, width=crop_width, flip=mirrored)


def centre_view(height: int, width: int, share: float = 1.0) -> View:
    """Return the centred square whose side is `share`, above 0 and up to 1, of the short side."""
    return square_view(height, width, 0, 1, share)


def square_view(height: int, width: int, index: int, num_squares: int, share: float = 1.0) -> View:
    """Return square `index` of `num_squares` that are spread evenly along the longer side, from the left or the top.

    Their side is `share`, above 0 and up to 1, of the short side, along which they are centred. A single square is
    centred, and so is the second of three. On a square frame all are the same.
    """
    if height == width and share == 1:
        return View(top=0, left=0, height=height, width=width)
    side = max(2, int(min(height, width) * share) // 2 * 2)
    longer = max(height, width)
    top, left = (
        _offset(length - side, index, num_squares if length == longer != min(height, width) else 1)
        for length in (height, width)
    )
    return View(top=top, left=left, height=side, width=side)


def _offset(free: int, index: int, num_squares: int) -> int:
    """Return where square `index` begins, in even pixels, with `free` pixels beside it."""
    steps, gaps = (2 * index, 2 * (num_squares - 1)) if num_squares > 1 else (1, 2)
    return free // 2 * steps // gaps * 2


def _even(length: float) -> int:
    return 2 * round(length / 2)


def write_view(clip: EventClip, view: View, keys: NDArray[np.uint8], residuals: NDArray[np.int16]) -> None:
    """Crop and resize a clip into existing arrays, such as rows of a batch.

    `keys` is uint8 RGB `[N, 3, S, S]`. `residuals` is int16 `[N, R, 3, S, S]`, in 8-bit units and the stored colour,
    with chroma in the size of luma. S is the size in pixels. Each picture in them must be contiguous.
    """
    for picture, out in zip(_crop(clip.keys, view, 1), keys, strict=True):
        # decoded pictures have their channels last in memory, so the transpose costs nothing
        _write_resized(picture.transpose(1, 2, 0), view, list(out))
    if clip.planes[1].shape == clip.planes[0].shape:
        _write_residuals(clip, view, (0, 1, 2), 1, residuals)
    else:
        _write_residuals(clip, view, (0,), 1, residuals)
        _write_residuals(clip, view, (1, 2), 2, residuals)


def _write_residuals(
    clip: EventClip, view: View, channels: Sequence[int], factor: int, residuals: NDArray[np.int16]
) -> None:
    """Write the residuals of `channels`, whose planes have one size, `factor` times smaller than luma."""
    pairs: list[tuple[NDArray[Any], NDArray[np.int16]]] = []
    for channel in channels:
        # contiguous: OpenCV merges it several times as fast
        cropped = np.ascontiguousarray(_crop(clip.planes[channel], view, factor))
        for events_of_group, residuals_of_group in zip(cropped, residuals[:, :, channel], strict=True):
            pairs += zip(events_of_group, residuals_of_group, strict=True)
    nonzero = []
    for events, residual in pairs:
        if cv2.hasNonZero(events):
            nonzero.append((events, residual))
        else:
            residual.fill(0)
    num_single = len(nonzero) % _NUM_CHANNELS
    parts = [[pair] for pair in nonzero[:num_single]]
    parts += [nonzero[first : first + _NUM_CHANNELS] for first in range(num_single, len(nonzero), _NUM_CHANNELS)]
    for part in parts:
        # scaled before the resize, which interpolates to grey levels between two steps of θ
        scaled = cv2.merge([events for events, _ in part]).astype(np.int16)
        scaled *= np.int16(clip.threshold)
        _write_resized(scaled, view, [residual for _, residual in part])


def _crop(pictures: NDArray[Any], view: View, factor: int) -> NDArray[Any]:
    """Return the part `[…, h, w]` that a view shows of pictures `[…, H, W]`, `factor` times smaller than luma."""
    top, left = view.top // factor, view.left // factor
    bottom, right = -(-(view.top + view.height) // factor), -(-(view.left + view.width) // factor)
    return pictures[..., top:bottom, left:right]


def _write_resized(picture: NDArray[Any], view: View, channels: Sequence[NDArray[Any]]) -> None:
    """Resize a picture `[h, w]` or `[h, w, C]` into `channels`, its C planes, and mirror it if the view does."""
    size = channels[0].shape[-1]
    if picture.shape[:2] != (size, size):
        # averages where it shrinks by more than half; linear interpolation would lose thin structures
        shrinks = min(picture.shape[:2]) > 2 * size
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if view.flip:
        picture = cv2.flip(picture, 1)
    # writes directly into them, since they have the right type and size
    cv2.split(picture, channels)
