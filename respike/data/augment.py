"""Augmentation: one crop, flip and resize for the key frames and the events of a clip together.

A crop is drawn on luma's grid and snapped to even pixels, so that it falls on whole samples of halved chroma planes.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from respike.sample import EventClip

_SCALE = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class View:
    """A rectangle of the stored frame, in pixels of luma, and whether it is mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def random_view(
    height: int, width: int, generator: np.random.Generator, *, flip: bool, scale: tuple[float, float] = _SCALE
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
    return _mirrored(centre_view(height, width), mirrored)


def centre_view(height: int, width: int) -> View:
    """The largest centred square."""
    return square_view(height, width, 0, 1)


def square_view(height: int, width: int, place: int, num_places: int) -> View:
    """One of `num_places` largest squares, spread evenly along the longer side from its left or upper end.

    A single one is centred, and of three the second is. On a square frame all are the same.
    """
    side = min(height, width)
    if height == width:
        return View(top=0, left=0, height=height, width=width)
    side = side // 2 * 2
    top, left = (_offset(length - side, place, num_places) for length in (height, width))
    return View(top=top, left=left, height=side, width=side)


def _offset(slack: int, place: int, num_places: int) -> int:
    """How far in the square begins, in even pixels."""
    steps, gaps = (2 * place, 2 * (num_places - 1)) if num_places > 1 else (1, 2)
    return slack // 2 * steps // gaps * 2


def _mirrored(view: View, flip: bool) -> View:
    return View(top=view.top, left=view.left, height=view.height, width=view.width, flip=flip)


def _even(length: float) -> int:
    return 2 * round(length / 2)


def apply_view(clip: EventClip, view: View, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Cut and resize a clip to `size` x `size` pixels.

    Returns keys uint8 RGB `[N, 3, size, size]` and residuals int16 `[N, R, 3, size, size]`, in 8-bit units and the
    stored colour, chroma brought to the size of luma.
    """
    num_groups, num_residuals = clip.planes[0].shape[:2]
    keys = np.empty((num_groups, 3, size, size), np.uint8)
    residuals = np.empty((num_groups, num_residuals, 3, size, size), np.int16)
    write_view(clip, view, keys, residuals)
    return keys, residuals


def write_view(clip: EventClip, view: View, keys: NDArray[np.uint8], residuals: NDArray[np.int16]) -> None:
    """Do what `apply_view` does, into arrays of its shapes that are there already, such as a row of a batch."""
    size = keys.shape[-1]
    for picture, out in zip(clip.keys, keys, strict=True):
        # decoded pictures are stored row by row with channels last; the transpose costs nothing before the resize
        resized = _resize(_cut(picture.transpose(1, 2, 0), view, 1), size, flip=view.flip)
        for channel in range(3):
            cv2.extractChannel(resized, channel, out[channel])
    factor = 1 if clip.planes[1].shape == clip.planes[0].shape else 2
    for channel, plane in enumerate(clip.planes):
        halved = factor if channel else 1
        for events_of_group, out in zip(plane, residuals, strict=True):
            for events, residual in zip(events_of_group, out[:, channel], strict=True):
                cut = _cut(events, view, halved)
                # scale before the resize: between two events lie grey levels that no whole number of events can say
                scaled = np.multiply(cut, np.int16(clip.threshold), dtype=np.int16)
                _resize(scaled, size, flip=view.flip, out=residual)


def _cut(picture: NDArray[Any], view: View, factor: int) -> NDArray[Any]:
    top, left = view.top // factor, view.left // factor
    bottom, right = -(-(view.top + view.height) // factor), -(-(view.left + view.width) // factor)
    return picture[top:bottom, left:right]


def _resize(picture: NDArray[Any], size: int, *, flip: bool, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Bring to `size` and mirror where asked; the result stands in `out` where it is given."""
    if picture.shape[:2] != (size, size):
        # averaging where it shrinks by more than half, else thin structures fall between the samples
        shrinks = min(picture.shape[:2]) > 2 * size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, (size, size), dst=None if flip else out, interpolation=method))
        if not flip:
            return picture
    if flip:
        return np.asarray(cv2.flip(picture, 1, dst=out))
    if out is None:
        return picture
    out[:] = picture
    return out
