"""Demo scenes: a resting prop that names one half of the class, a mover whose path names the other. Drawing only.

A scene is made so that no single frame tells the motion: the mover lives on a torus (what leaves the frame on one side
comes back on the other), its place, angle and colours are drawn alike for every motion, and left mirrors right as
clockwise mirrors counter-clockwise.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PROPS = ("disc", "square", "triangle", "cross")
MOTIONS = ("left", "right", "clockwise", "counterclockwise")
SIZE = 72
# most that the mover goes in a frame: share of the side, radians
_MOST_STEP = 0.065
_MOST_TURN = 0.21

_Picture = NDArray[np.floating[Any]]
_Mask = NDArray[np.floating[Any]]


def draw_scene(
    prop: str, motion: str, num_frames: int, generator: np.random.Generator, size: int = SIZE
) -> NDArray[np.uint8]:
    """Draw one scene: uint8 RGB `[num_frames, size, size, 3]`, the prop at rest, the mover under way."""
    background = _background(size, generator)
    still = _blend(background, *_prop(prop, size, generator))
    mover = _draw_mover(size, generator)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for number, pose in enumerate(_path(motion, num_frames, size, generator)):
        share = number / max(1, num_frames - 1)
        color = (1 - share) * mover.first_color + share * mover.last_color
        across, down = _grid(size, pose.x, pose.y, pose.angle, wrap=True)
        balls = np.hypot(abs(across) - mover.reach, down) - mover.ball_radius
        bar = np.maximum(abs(across) - mover.reach, abs(down) - mover.half_width)
        mask = _soft(np.minimum(balls, bar))
        frames[number] = np.clip(_blend(still, mask, np.broadcast_to(color, still.shape)), 0, 255)
    return frames


def _blend(under: _Picture, mask: _Mask, over: NDArray[np.floating[Any]]) -> _Picture:
    blended: _Picture = (under + mask[..., None] * (over - under)).astype(np.float32)
    return blended


def _background(size: int, generator: np.random.Generator) -> _Picture:
    """Smooth noise at two scales: texture that the mover covers and uncovers."""
    picture = np.full((size, size, 3), generator.uniform(40, 110, 3), np.float32)
    for cells, strength in ((4, 30.0), (18, 14.0)):
        noise = generator.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    clipped: _Picture = np.clip(picture, 0, 255)
    return clipped


def _grid(size: int, x: float, y: float, angle: float, *, wrap: bool = False) -> tuple[_Picture, _Picture]:
    """Pixel coordinates about (x, y), turned by `angle`; on the torus if `wrap`."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    across, down = columns - x, rows - y
    if wrap:
        across, down = (across + size / 2) % size - size / 2, (down + size / 2) % size - size / 2
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


@dataclass(frozen=True, kw_only=True)
class _Mover:
    """A light dumbbell: from its centre to a ball's, a ball's radius, half the bar's width, in pixels; its colours.

    It drifts from the first colour to the last.
    """

    reach: float
    ball_radius: float
    half_width: float
    first_color: NDArray[np.float64]
    last_color: NDArray[np.float64]


def _draw_mover(size: int, generator: np.random.Generator) -> _Mover:
    # lighter than anything else in the scene, whatever its hue: what it covers brightens, what it uncovers darkens
    first_color, last_color = generator.uniform(185, 255, (2, 3))
    return _Mover(
        reach=size * generator.uniform(0.20, 0.25),
        ball_radius=size * generator.uniform(0.065, 0.085),
        half_width=size * generator.uniform(0.03, 0.05),
        first_color=first_color,
        last_color=last_color,
    )


@dataclass(frozen=True)
class _Pose:
    """Where the mover is, in pixels, and how far it is turned, in radians."""

    x: float
    y: float
    angle: float


def _path(motion: str, num_frames: int, size: int, generator: np.random.Generator) -> list[_Pose]:
    """The mover's pose in each frame: uniform on the torus and over all angles, whatever the motion."""
    x, y = generator.uniform(0, size, 2)
    angle = generator.uniform(0, 2 * math.pi)
    speed = generator.uniform(0.6, 1)
    # rows run downwards, so a growing angle turns clockwise as seen
    step, turn = {
        "left": (-_MOST_STEP, 0.0),
        "right": (_MOST_STEP, 0.0),
        "clockwise": (0.0, _MOST_TURN),
        "counterclockwise": (0.0, -_MOST_TURN),
    }[motion]
    return [_Pose(x + speed * step * size * number, y, angle + speed * turn * number) for number in range(num_frames)]
