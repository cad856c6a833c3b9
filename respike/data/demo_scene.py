"""Demo scenes: a resting prop that names one half of the class, a mover whose path names the other. Drawing only.

A scene is made so that no single frame tells the motion: the mover lives on a torus (what leaves the frame on one side
comes back on the other), its place, angle and colours are drawn alike for every motion, and left mirrors right as
clockwise mirrors counter-clockwise.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respike.data.demo_canvas import Mask, Picture, blend, draw_background, draw_dumbbell, make_grid, soften

PROPS = ("disc", "square", "triangle", "cross")
MOTIONS = ("left", "right", "clockwise", "counterclockwise")
SIZE = 72
# most that the mover goes in a frame: share of the side, radians
_MOST_STEP = 0.065
_MOST_TURN = 0.21


def draw_scene(
    prop: str, motion: str, num_frames: int, generator: np.random.Generator, size: int = SIZE
) -> NDArray[np.uint8]:
    """Draw one scene: uint8 RGB `[num_frames, size, size, 3]`, the prop at rest, the mover under way."""
    background = draw_background(size, generator)
    still = blend(background, *_prop(prop, size, generator))
    mover = draw_dumbbell(size, generator)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for number, pose in enumerate(_path(motion, num_frames, size, generator)):
        share = number / max(1, num_frames - 1)
        mask = mover.mask(*make_grid(size, pose.x, pose.y, pose.angle, wrap=True))
        frames[number] = np.clip(blend(still, mask, np.broadcast_to(mover.color(share), still.shape)), 0, 255)
    return frames


def _prop(prop: str, size: int, generator: np.random.Generator) -> tuple[Mask, Picture]:
    """A shape with its own colour pattern, somewhere in the frame."""
    radius = size * generator.uniform(0.15, 0.21)
    x, y = generator.uniform(radius, size - radius, 2)
    across, down = make_grid(size, x, y, generator.uniform(-0.4, 0.4))
    distance: Picture
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
    return soften(distance), color.astype(np.float32)


def _swapped(across: Picture, down: Picture, radius: float) -> Picture:
    swapped: Picture = np.maximum(abs(down) - radius, abs(across) - radius / 3.2)
    return swapped


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
