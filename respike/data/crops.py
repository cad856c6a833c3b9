"""Crops: which rectangle of a frame a batch shows. Drawn to train, fixed to evaluate; arithmetic alone, no pixels.

A crop is drawn on luma's grid and snapped to even pixels, so that it falls on whole samples of halved chroma planes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from respike.cropping import CROP_SCALE, CROP_SIDES

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
