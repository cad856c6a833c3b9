"""Hard demo scenes: which of several moving things moves how. Drawing only.

A picture has four quarters. In one stands the thing asked for: a window with a mover in it, framed in one of two
colours. In another stands its rival, framed in a colour that is never asked for, whose mover goes about another motion;
in a third a mover at rest that flickers; one stays empty. All movers are alike, so that only a key frame tells which
is asked for, only events tell how it moves, and only who puts the two together at one place knows the class.

A mover never leaves its window: no frame's colour is ever covered or uncovered, so that events know nothing of it. The
window is a torus and the sizes a circle, so that a mover's place, angle and size are spread alike in every frame of
every motion.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respike.data.demo_canvas import Picture, blend, draw_background, draw_dumbbell, make_grid

HARD_SUBJECTS = ("amber", "azure")
HARD_MOTIONS = ("left", "right", "clockwise", "counterclockwise", "growing", "shrinking", "swaying", "rocking")
_RIVALS = ("rose", "jade")
_COLORS = {"amber": (235, 165, 30), "azure": (40, 130, 240), "rose": (225, 60, 130), "jade": (40, 170, 90)}
_REST = "rest"
# shares of the picture's side
_WINDOW, _BORDER = 0.34, 0.06
# most that a mover changes in a frame: share of the window's side, radians, octaves of size
_MOST_STEP, _MOST_TURN, _MOST_GROWTH = 0.085, 0.30, 0.12
_SMALLEST, _STOUTNESS = 0.65, 1.7
_DIMMEST = 0.75
# what a motion changes: place, angle, size; and whether it turns back half-way, having begun either way
_MOTIONS = {
    "left": (-1, 0, 0, False),
    "right": (1, 0, 0, False),
    # rows run downwards, so a growing angle turns clockwise as seen
    "clockwise": (0, 1, 0, False),
    "counterclockwise": (0, -1, 0, False),
    "growing": (0, 0, 1, False),
    "shrinking": (0, 0, -1, False),
    "swaying": (1, 0, 0, True),
    "rocking": (0, 1, 0, True),
    _REST: (0, 0, 0, False),
}


def draw_hard_scene(
    subject: str, motion: str, num_frames: int, generator: np.random.Generator, size: int
) -> NDArray[np.uint8]:
    """Draw one scene: uint8 RGB `[num_frames, size, size, 3]`; the thing framed in `subject` moves as `motion` says."""
    frames = np.repeat(draw_background(size, generator)[None], num_frames, axis=0)
    window, border = round(_WINDOW * size), round(_BORDER * size)
    outer = window + 2 * border
    rival, still = generator.choice(_RIVALS, 2)
    rival_motion = generator.choice([name for name in HARD_MOTIONS if name != motion])
    quarters = generator.permutation(4)
    things = ((subject, motion), (str(rival), str(rival_motion)), (str(still), _REST))
    for quarter, (color, its_motion) in zip(quarters, things, strict=False):
        row, column = divmod(int(quarter), 2)
        top, left = (size // 2 * half + int(generator.integers(0, size // 2 - outer + 1)) for half in (row, column))
        frames[:, top : top + outer, left : left + outer] = _COLORS[color] + generator.normal(0, 12, 3)
        top, left = top + border, left + border
        frames[:, top : top + window, left : left + window] = _draw_window(its_motion, num_frames, window, generator)
    return np.clip(frames, 0, 255).astype(np.uint8)


def _draw_window(motion: str, num_frames: int, side: int, generator: np.random.Generator) -> Picture:
    """A mover under way before a background of its own: `[num_frames, side, side, 3]`."""
    background, mover = draw_background(side, generator), draw_dumbbell(side, generator, _STOUTNESS)
    pictures = np.empty((num_frames, side, side, 3), np.float32)
    for number, pose in enumerate(_path(motion, num_frames, side, generator)):
        mask = mover.mask(*make_grid(side, pose.x, pose.y, pose.angle, wrap=True), pose.scale)
        color = mover.color(number / max(1, num_frames - 1))
        if motion == _REST:
            color = color * generator.uniform(_DIMMEST, 1)
        pictures[number] = blend(background, mask, np.broadcast_to(color, background.shape))
    return pictures


@dataclass(frozen=True, kw_only=True)
class _Pose:
    """Where a mover is, in pixels, how far it is turned, in radians, and how many times as large."""

    x: float
    y: float
    angle: float
    scale: float


def _path(motion: str, num_frames: int, side: int, generator: np.random.Generator) -> list[_Pose]:
    """The mover's pose in each frame: uniform over places, angles and an octave of sizes, whatever the motion."""
    x, y = generator.uniform(0, side, 2)
    angle, octave = generator.uniform(0, 2 * math.pi), generator.uniform(0, 1)
    speed, first_way = generator.uniform(0.6, 1), int(generator.choice((-1, 1)))
    step, turn, growth, turns_back = _MOTIONS[motion]
    poses = []
    for number in range(num_frames):
        way = speed * (first_way * min(number, num_frames - number) if turns_back else number)
        poses.append(
            _Pose(
                x=x + way * step * _MOST_STEP * side,
                y=y,
                angle=angle + way * turn * _MOST_TURN,
                scale=_SMALLEST * 2 ** ((octave + way * growth * _MOST_GROWTH) % 1),
            )
        )
    return poses
