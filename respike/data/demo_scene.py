"""Demo scenes: a resting prop that names one half of the class, a mover whose path names the other. Drawing only.

A scene is made so that no single frame tells the motion: the mover lives on a torus (what leaves the frame on one side
comes back on the other), its place, angle and colours are drawn alike for every motion, and left mirrors right as
clockwise mirrors counter-clockwise.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PROPS = ("disc", "square", "triangle", "cross")
MOTIONS = ("left", "right", "clockwise", "counterclockwise")
SIZE = 72

_Picture = NDArray[np.floating[Any]]
_Mask = NDArray[np.floating[Any]]


def draw_scene(
    prop: str, motion: str, num_frames: int, generator: np.random.Generator, size: int = SIZE
) -> NDArray[np.uint8]:
    """Draw one scene: uint8 RGB `[num_frames, size, size, 3]`, the prop at rest, the mover under way."""
    background = _background(size, generator)
    still = _blend(background, *_prop(prop, size, generator))
    sprite, colors = _mover(size, generator)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for number, (x, y) in enumerate(_path(motion, num_frames, size, generator)):
        # the colour drifts as it goes: brightness alone must not say which edge leads
        share = number / max(1, num_frames - 1)
        color = (1 - share) * colors[0] + share * colors[1]
        moved = np.roll(sprite, (round(y), round(x)), axis=(0, 1))
        frames[number] = np.clip(_blend(still, moved, np.broadcast_to(color, still.shape)), 0, 255)
    return frames


def _blend(under: _Picture, mask: _Mask, over: NDArray[np.floating[Any]]) -> _Picture:
    blended: _Picture = (under + mask[..., None] * (over - under)).astype(np.float32)
    return blended


def _background(size: int, generator: np.random.Generator) -> _Picture:
    """Smooth noise at two scales: texture that the mover covers and uncovers."""
    picture = np.full((size, size, 3), generator.uniform(70, 180, 3), np.float32)
    for cells, strength in ((4, 30.0), (18, 14.0)):
        noise = generator.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    clipped: _Picture = np.clip(picture, 0, 255)
    return clipped


def _grid(size: int, x: float, y: float, angle: float) -> tuple[_Picture, _Picture]:
    """Pixel coordinates about (x, y), turned by `angle`."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    across, down = columns - x, rows - y
    return math.cos(angle) * across + math.sin(angle) * down, math.cos(angle) * down - math.sin(angle) * across


def _soft(distance: _Picture) -> _Mask:
    """1 inside (negative distance), 0 outside, a pixel of slope between."""
    mask: _Mask = np.clip(0.5 - distance, 0, 1)
    return mask


def _prop(prop: str, size: int, generator: np.random.Generator) -> tuple[_Mask, _Picture]:
    """A shape with its own colour pattern, somewhere in the frame."""
    radius = size * generator.uniform(0.15, 0.21)
    x, y = generator.uniform(radius, size - radius, 2)
    across, down = _grid(size, x, y, generator.uniform(-0.4, 0.4))
    distance: _Picture
    if prop == "disc":
        distance, pattern = np.hypot(across, down) - radius, np.hypot(across, down) % (radius / 1.5) < radius / 3
    elif prop == "square":
        distance, pattern = np.maximum(abs(across), abs(down)) - 0.85 * radius, across % (radius / 1.5) < radius / 3
    elif prop == "triangle":
        sides = np.maximum(0.87 * abs(across) + 0.5 * down, -down) - 0.6 * radius
        distance, pattern = sides, down % (radius / 1.5) < radius / 3
    else:
        arms = np.minimum(np.maximum(abs(across) - radius, abs(down) - radius / 3.2), _swapped(across, down, radius))
        distance, pattern = arms, (across > 0) ^ (down > 0)
    hue = PROPS.index(prop)
    light, dark = np.roll([235.0, 200.0, 40.0], hue), np.roll([40.0, 30.0, 140.0], hue)
    if hue == 3:
        light, dark = np.array([245.0, 245.0, 245.0]), np.array([20.0, 20.0, 20.0])
    color = np.where(pattern[..., None], light, dark) + generator.normal(0, 12, 3)
    return _soft(distance), color.astype(np.float32)


def _swapped(across: _Picture, down: _Picture, radius: float) -> _Picture:
    swapped: _Picture = np.maximum(abs(down) - radius, abs(across) - radius / 3.2)
    return swapped


def _mover(size: int, generator: np.random.Generator) -> tuple[_Mask, NDArray[np.float64]]:
    """A bar or a blob at the origin of the torus, and the two colours between which it drifts."""
    across, down = _grid(size, size / 2, size / 2, generator.uniform(0, math.pi))
    half = size * generator.uniform(0.07, 0.10)
    length = half * generator.uniform(1.0, 1.8)
    mask = _soft(np.maximum(abs(across) - length, abs(down) - half))
    colors = generator.uniform(0, 255, (2, 3))
    # far from mid-grey, so that it stands out from any background, on either side
    colors = np.where(generator.random((1, 1)) < 0.5, colors * 0.3, 255 - colors * 0.3)
    return mask, colors


def _path(motion: str, num_frames: int, size: int, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Where the mover is in each frame, in pixels, on the torus; uniform there whatever the motion."""
    start_x, start_y = generator.uniform(0, size, 2)
    speed = size * generator.uniform(0.035, 0.06)
    if motion in ("left", "right"):
        sign = 1 if motion == "right" else -1
        return [(start_x + sign * speed * number, start_y) for number in range(num_frames)]
    # rows run downwards, so a growing angle turns clockwise as seen
    sign = 1 if motion == "clockwise" else -1
    radius = size * generator.uniform(0.09, 0.13)
    phase = generator.uniform(0, 2 * math.pi)
    angles = [phase + sign * speed / radius * number for number in range(num_frames)]
    return [(start_x + radius * math.cos(angle), start_y + radius * math.sin(angle)) for angle in angles]
