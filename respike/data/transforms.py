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
# in quarters of what is left over: the corners, the edges' middles, the centre, and the middles between it and corners
_PLACES = tuple((down, right) for down in range(5) for right in range(5) if down % 2 == right % 2)


@dataclass(frozen=True, kw_only=True)
class View:
    """A rectangle of the stored frame, in pixels of luma, and whether it is mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def random_view(
    height: int, width: int, generator: np.random.Generator, *, flip: bool, scale: tuple[float, float] = CROP_SCALE
) -> View:
    """Draw a random resized crop (area share `scale`, aspect 3:4 to 4:3) and, if `flip`, a mirror with chance ½.

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
    """Draw a multi-scale crop at one of thirteen places and, if `flip`, a mirror with chance ½.

    Height and width are each one of `sides`, shares of the frame's short side, the two at most one place apart in
    their list. The places are quarters of the way from edge to edge.

    Source: Wang et al., Temporal Segment Networks (corner cropping and scale jittering), with the pairings and places
    of their published code; sizes and places are rounded down to even pixels.
    """
    mirrored = flip and bool(generator.random() < 0.5)
    row = int(generator.integers(0, 3 * len(sides) - 2))
    # the pairs that are at most one place apart, counted along the diagonal: (0,0) (0,1) (1,0) (1,1) (1,2) …
    number, kind = divmod(row, 3)
    tall, wide = number + (kind == 2), number + (kind == 1)
    short = min(height, width)
    crop_height, crop_width = (max(2, int(short * sides[place]) // 2 * 2) for place in (tall, wide))
    down, right = _PLACES[int(generator.integers(0, len(_PLACES)))]
    top, left = (height - crop_height) // 2 * down // 4 * 2, (width - crop_width) // 2 * right // 4 * 2
    return View(top=top, left=left, height=crop_height, width=crop_width, flip=mirrored)


def centre_view(height: int, width: int, share: float = 1.0) -> View:
    """The centred square whose side is `share`, above 0 and up to 1, of the short side."""
    return square_view(height, width, 0, 1, share)


def square_view(height: int, width: int, place: int, num_places: int, share: float = 1.0) -> View:
    """One of `num_places` squares, spread evenly along the longer side from its left or upper end.

    Their side is `share`, above 0 and up to 1, of the short side, along which they are centred. A single one is
    centred, and of three the second is. On a square frame all are the same.
    """
    if height == width and share == 1:
        return View(top=0, left=0, height=height, width=width)
    side = max(2, int(min(height, width) * share) // 2 * 2)
    longer = max(height, width)
    top, left = (
        _offset(length - side, place, num_places if length == longer != min(height, width) else 1)
        for length in (height, width)
    )
    return View(top=top, left=left, height=side, width=side)


def _offset(slack: int, place: int, num_places: int) -> int:
    """How far in the square begins, in even pixels."""
    steps, gaps = (2 * place, 2 * (num_places - 1)) if num_places > 1 else (1, 2)
    return slack // 2 * steps // gaps * 2


def _even(length: float) -> int:
    return 2 * round(length / 2)


# planes of events in one picture: OpenCV takes half the time for four channels of one as for four pictures, and rounds
# them alike; with two, or more than four, it takes another way, twice as long
_NUM_TOGETHER = 4


def write_view(clip: EventClip, view: View, keys: NDArray[np.uint8], residuals: NDArray[np.int16]) -> None:
    """Cut and resize a clip into arrays that are there already, such as rows of a batch.

    `keys` is uint8 RGB `[N, 3, S, S]`, `residuals` int16 `[N, R, 3, S, S]`, in 8-bit units and the stored colour,
    chroma brought to the size of luma; S is the size in pixels. Each picture of both is contiguous.
    """
    for picture, out in zip(_cut(clip.keys, view, 1), keys, strict=True):
        # decoded pictures are stored row by row with channels last; the transpose costs nothing before the resize
        _write_resized(picture.transpose(1, 2, 0), view, list(out))
    if clip.planes[1].shape == clip.planes[0].shape:
        _write_residuals(clip, view, (0, 1, 2), 1, residuals)
    else:
        _write_residuals(clip, view, (0,), 1, residuals)
        _write_residuals(clip, view, (1, 2), 2, residuals)


def _write_residuals(
    clip: EventClip, view: View, channels: Sequence[int], factor: int, residuals: NDArray[np.int16]
) -> None:
    """Write the residuals of the channels that are of one size, `factor` times smaller than luma."""
    pairs: list[tuple[NDArray[Any], NDArray[np.int16]]] = []
    for channel in channels:
        # rows in one piece: OpenCV merges them several times as fast
        cut = np.ascontiguousarray(_cut(clip.planes[channel], view, factor))
        for events_of_group, residuals_of_group in zip(cut, residuals[:, :, channel], strict=True):
            pairs += zip(events_of_group, residuals_of_group, strict=True)
    busy = []
    for events, residual in pairs:
        if cv2.hasNonZero(events):
            busy.append((events, residual))
        else:
            residual.fill(0)
    num_single = len(busy) % _NUM_TOGETHER
    parts = [[pair] for pair in busy[:num_single]]
    parts += [busy[first : first + _NUM_TOGETHER] for first in range(num_single, len(busy), _NUM_TOGETHER)]
    for part in parts:
        # scale before the resize: between two events lie grey levels that no whole number of events can say
        scaled = cv2.merge([events for events, _ in part]).astype(np.int16)
        scaled *= np.int16(clip.threshold)
        _write_resized(scaled, view, [residual for _, residual in part])


def _cut(pictures: NDArray[Any], view: View, factor: int) -> NDArray[Any]:
    """The part `[…, h, w]` of pictures `[…, H, W]`, which are `factor` times smaller than luma."""
    top, left = view.top // factor, view.left // factor
    bottom, right = -(-(view.top + view.height) // factor), -(-(view.left + view.width) // factor)
    return pictures[..., top:bottom, left:right]


def _write_resized(picture: NDArray[Any], view: View, channels: Sequence[NDArray[Any]]) -> None:
    """Bring a picture `[h, w]` or `[h, w, C]` to the size of `channels`, its planes, and mirror where asked."""
    size = channels[0].shape[-1]
    if picture.shape[:2] != (size, size):
        # averaging where it shrinks by more than half, else thin structures fall between the samples
        shrinks = min(picture.shape[:2]) > 2 * size
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if view.flip:
        picture = cv2.flip(picture, 1)
    # straight into them, since they have the type and the size that it asks for
    cv2.split(picture, channels)
