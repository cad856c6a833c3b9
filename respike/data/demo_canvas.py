"""Demo canvas: what every scene of the demo is drawn with. Backgrounds, coordinates, soft edges, blending."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.floating[Any]]
Mask = NDArray[np.floating[Any]]


def blend(under: Picture, mask: Mask, over: NDArray[np.floating[Any]]) -> Picture:
    """Lay `over` on `under`, both `[H, W, 3]`, where `mask` `[H, W]` is 1, and in part where it is below."""
    blended: Picture = (under + mask[..., None] * (over - under)).astype(np.float32)
    return blended


def draw_background(size: int, generator: np.random.Generator) -> Picture:
    """Smooth noise at two scales, `[size, size, 3]`, 0 to 255: texture that a mover covers and uncovers."""
    picture = np.full((size, size, 3), generator.uniform(40, 110, 3), np.float32)
    for cells, strength in ((4, 30.0), (18, 14.0)):
        noise = generator.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    clipped: Picture = np.clip(picture, 0, 255)
    return clipped


def make_grid(size: int, x: float, y: float, angle: float, *, wrap: bool = False) -> tuple[Picture, Picture]:
    """Pixel coordinates about (x, y), turned by `angle`, in radians; on the torus if `wrap`."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    across, down = columns - x, rows - y
    if wrap:
        across, down = (across + size / 2) % size - size / 2, (down + size / 2) % size - size / 2
    return math.cos(angle) * across + math.sin(angle) * down, math.cos(angle) * down - math.sin(angle) * across


def soften(distance: Picture) -> Mask:
    """1 inside (negative distance, in pixels), 0 outside, a pixel of slope between."""
    mask: Mask = np.clip(0.5 - distance, 0, 1)
    return mask


@dataclass(frozen=True, kw_only=True)
class Dumbbell:
    """A mover: from its centre to a ball's, a ball's radius, half the bar's width, in pixels; its two colours.

    It drifts from the first colour to the last.
    """

    reach: float
    ball_radius: float
    half_width: float
    first_color: NDArray[np.float64]
    last_color: NDArray[np.float64]

    def mask(self, across: Picture, down: Picture, scale: float = 1.0) -> Mask:
        """Where it covers, on a grid about its centre; `scale` times as large."""
        reach, radius, half_width = scale * self.reach, scale * self.ball_radius, scale * self.half_width
        balls = np.hypot(abs(across) - reach, down) - radius
        bar = np.maximum(abs(across) - reach, abs(down) - half_width)
        return soften(np.minimum(balls, bar))

    def color(self, share: float) -> NDArray[np.float64]:
        """Its colour when `share` of the scene, 0 to 1, is over."""
        return (1 - share) * self.first_color + share * self.last_color


def draw_dumbbell(size: int, generator: np.random.Generator, stoutness: float = 1.0) -> Dumbbell:
    """Draw a mover for a frame of `size` pixels, its balls and bar `stoutness` times as thick as usual."""
    # lighter than anything else in the scene, whatever its hue: what it covers brightens, what it uncovers darkens
    first_color, last_color = generator.uniform(185, 255, (2, 3))
    return Dumbbell(
        reach=size * generator.uniform(0.20, 0.25),
        ball_radius=stoutness * size * generator.uniform(0.065, 0.085),
        half_width=stoutness * size * generator.uniform(0.03, 0.05),
        first_color=first_color,
        last_color=last_color,
    )
