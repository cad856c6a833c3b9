"""Synthetic videos: the scenes of the demo dataset, written as real H.264 files."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from respike.common.errors import SettingError
from respike.common.files import canonical_json, write_atomically
from respike.common.progress import SILENCE, Progress
from respike.data.executors import local
from respike.data.executors.base import Job, Report
from respike.data.video_writer import write_video

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


PROPS = ("disc", "square", "triangle", "cross")
MOTIONS = ("left", "right", "clockwise", "counterclockwise")
SIZE = 72
# most that the mover goes in a frame: share of the side, radians
_SCENE_MOST_STEP = 0.065
_SCENE_MOST_TURN = 0.21


def draw_scene(
    prop: str, motion: str, num_frames: int, generator: np.random.Generator, size: int = SIZE
) -> NDArray[np.uint8]:
    """Draw one scene: uint8 RGB `[num_frames, size, size, 3]`, the prop at rest, the mover under way."""
    background = draw_background(size, generator)
    still = blend(background, *_prop(prop, size, generator))
    mover = draw_dumbbell(size, generator)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for number, pose in enumerate(_scene_path(motion, num_frames, size, generator)):
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
class _ScenePose:
    """Where the mover is, in pixels, and how far it is turned, in radians."""

    x: float
    y: float
    angle: float


def _scene_path(motion: str, num_frames: int, size: int, generator: np.random.Generator) -> list[_ScenePose]:
    """The mover's pose in each frame: uniform on the torus and over all angles, whatever the motion."""
    x, y = generator.uniform(0, size, 2)
    angle = generator.uniform(0, 2 * math.pi)
    speed = generator.uniform(0.6, 1)
    # rows run downwards, so a growing angle turns clockwise as seen
    step, turn = {
        "left": (-_SCENE_MOST_STEP, 0.0),
        "right": (_SCENE_MOST_STEP, 0.0),
        "clockwise": (0.0, _SCENE_MOST_TURN),
        "counterclockwise": (0.0, -_SCENE_MOST_TURN),
    }[motion]
    return [
        _ScenePose(x + speed * step * size * number, y, angle + speed * turn * number) for number in range(num_frames)
    ]


HARD_SUBJECTS = ("amber", "azure")
HARD_MOTIONS = ("left", "right", "clockwise", "counterclockwise", "growing", "shrinking", "swaying", "rocking")
_RIVALS = ("rose", "jade")
_COLORS = {"amber": (235, 165, 30), "azure": (40, 130, 240), "rose": (225, 60, 130), "jade": (40, 170, 90)}
_REST = "rest"
# shares of the picture's side
_WINDOW, _BORDER = 0.34, 0.06
# most that a mover changes in a frame: share of the window's side, radians, octaves of size
_HARD_MOST_STEP, _HARD_MOST_TURN, _MOST_GROWTH = 0.085, 0.30, 0.12
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
    for number, pose in enumerate(_hard_path(motion, num_frames, side, generator)):
        mask = mover.mask(*make_grid(side, pose.x, pose.y, pose.angle, wrap=True), pose.scale)
        color = mover.color(number / max(1, num_frames - 1))
        if motion == _REST:
            color = color * generator.uniform(_DIMMEST, 1)
        pictures[number] = blend(background, mask, np.broadcast_to(color, background.shape))
    return pictures


@dataclass(frozen=True, kw_only=True)
class _HardPose:
    """Where a mover is, in pixels, how far it is turned, in radians, and how many times as large."""

    x: float
    y: float
    angle: float
    scale: float


def _hard_path(motion: str, num_frames: int, side: int, generator: np.random.Generator) -> list[_HardPose]:
    """The mover's pose in each frame: uniform over places, angles and an octave of sizes, whatever the motion."""
    x, y = generator.uniform(0, side, 2)
    angle, octave = generator.uniform(0, 2 * math.pi), generator.uniform(0, 1)
    speed, first_way = generator.uniform(0.6, 1), int(generator.choice((-1, 1)))
    step, turn, growth, turns_back = _MOTIONS[motion]
    poses = []
    for number in range(num_frames):
        way = speed * (first_way * min(number, num_frames - number) if turns_back else number)
        poses.append(
            _HardPose(
                x=x + way * step * _HARD_MOST_STEP * side,
                y=y,
                angle=angle + way * turn * _HARD_MOST_TURN,
                scale=_SMALLEST * 2 ** ((octave + way * growth * _MOST_GROWTH) % 1),
            )
        )
    return poses


_DONE, _BEGUN = "demo.json", ".begun.json"


@dataclass(frozen=True, kw_only=True)
class SceneSet:
    """Scenes of one build, each of a subject and a motion, whose product the classes are; `draw` makes one.

    `draw` takes subject, motion, the number of frames, a generator and the side in pixels.
    """

    subjects: tuple[str, ...]
    motions: tuple[str, ...]
    draw: Callable[[str, str, int, np.random.Generator, int], NDArray[np.uint8]]


PLAIN = "plain"
SCENES = {
    PLAIN: SceneSet(subjects=PROPS, motions=MOTIONS, draw=draw_scene),
    "hard": SceneSet(subjects=HARD_SUBJECTS, motions=HARD_MOTIONS, draw=draw_hard_scene),
}


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How many videos a class, how many scenes a video, frames a scene, pixels a side; `scenes` names one of SCENES.

    Raises SettingError on a number below 1 and on scenes that there are not.
    """

    train_videos: int = 8
    train_scenes: int = 15
    test_videos: int = 4
    test_scenes: int = 6
    clip_length: int = 16
    size: int = SIZE
    crf: int = 23
    seed: int = 0
    scenes: str = PLAIN

    def __post_init__(self) -> None:
        if self.scenes not in SCENES:
            raise SettingError(f"scenes are {self.scenes!r}", f"choose from {', '.join(SCENES)}")
        for name, value in asdict(self).items():
            if name != "scenes" and value < (0 if name in ("seed", "crf") else 1):
                raise SettingError(f"{name} is {value}", "it must be at least 1")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values; plain scenes go without saying, as before there were others."""
        return {name: value for name, value in asdict(self).items() if value != PLAIN}


def choose_settings(scenes: str, clip_length: int, num_videos: int | None) -> DemoSettings:
    """Settings to compare networks on: `num_videos` a class to train (None: the usual number), half as many to test.

    Raises SettingError as DemoSettings does.
    """
    settings = DemoSettings(scenes=scenes, clip_length=clip_length)
    if scenes != PLAIN:
        # networks that differ by a few percent are not told apart by a few hundred clips
        settings = replace(settings, test_scenes=settings.train_scenes)
    if num_videos is None:
        return settings
    return replace(settings, train_videos=num_videos, test_videos=max(1, num_videos // 2))


@dataclass(frozen=True, kw_only=True)
class _VideoTask:
    path: Path
    subject: str
    motion: str
    num_scenes: int
    seed: tuple[int, ...]
    settings: DemoSettings


def demo_classes(scenes: str = PLAIN) -> tuple[str, ...]:
    """The class names of one of SCENES, 16 in either, sorted: `subject-motion`."""
    chosen = SCENES[scenes]
    return tuple(sorted(f"{subject}-{motion}" for subject in chosen.subjects for motion in chosen.motions))


def write_demo(root: Path, settings: DemoSettings, *, num_workers: int = 1, progress: Progress = SILENCE) -> None:
    """Write the videos as `root/{train,test}/<class>/NN.mp4`; those of the same settings that stand there are kept.

    Frames depend on the settings alone, not on `num_workers`. Raises RespikeError where ffmpeg or the disk fails.
    """
    done, begun = root / _DONE, root / _BEGUN
    wanted = canonical_json(settings.to_json())
    if done.is_file() and done.read_text() == wanted:
        return
    tasks = _plan(root, settings)
    done.unlink(missing_ok=True)
    _clear(root, ".*.mp4" if begun.is_file() and begun.read_text() == wanted else "*.mp4")
    for folder in {task.path.parent for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(begun, wanted)
    tasks = [task for task in tasks if not task.path.exists()]
    with progress.task("make videos", total=len(tasks), unit="videos") as task:
        for _ in local.run(Job(function=_write), tasks, num_workers, lambda worker, note: task.advance()):
            pass
    write_atomically(done, wanted)
    begun.unlink()


def _clear(root: Path, stale: str) -> None:
    """Take away videos that match `stale` and class folders left empty: a folder is a class to who lists them.

    Classes of other scenes are looked at as well.
    """
    for subset, scenes in itertools.product(("train", "test"), SCENES):
        for name in demo_classes(scenes):
            folder = root / subset / name
            for path in folder.glob(stale):
                path.unlink()
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def write_demo_video(path: Path, settings: DemoSettings) -> None:
    """Write one video of four scenes, each prop and each motion once. Raises RespikeError where ffmpeg fails."""
    generator = np.random.default_rng(settings.seed)
    pairs = zip(PROPS, MOTIONS, strict=True)
    scenes = (draw_scene(*pair, settings.clip_length, generator, settings.size) for pair in pairs)
    _encode(path, itertools.chain.from_iterable(scenes), settings)


def _plan(root: Path, settings: DemoSettings) -> list[_VideoTask]:
    parts = (
        ("train", settings.train_videos, settings.train_scenes),
        ("test", settings.test_videos, settings.test_scenes),
    )
    scenes = SCENES[settings.scenes]
    return [
        _VideoTask(
            path=root / subset / f"{subject}-{motion}" / f"{video:02d}.mp4",
            subject=subject,
            motion=motion,
            num_scenes=num_scenes,
            seed=(settings.seed, part, subject_number, motion_number, video),
            settings=settings,
        )
        for part, (subset, num_videos, num_scenes) in enumerate(parts)
        for subject_number, subject in enumerate(scenes.subjects)
        for motion_number, motion in enumerate(scenes.motions)
        for video in range(num_videos)
    ]


def _write(task: _VideoTask, report: Report) -> None:
    # renamed last: a half video must not look finished
    unfinished = task.path.with_name(f".{task.path.name}")
    _encode(unfinished, _frames(task), task.settings)
    unfinished.replace(task.path)
    report("written")


def _encode(path: Path, frames: Iterable[NDArray[np.uint8]], settings: DemoSettings) -> None:
    # a group of pictures a scene and no scene looks ahead: the codec carries nothing from one scene to the next
    options: dict[str, str | int] = {"crf": settings.crf, "g": settings.clip_length, "preset": "veryfast"}
    options |= {"x264-params": f"keyint={settings.clip_length}:scenecut=0", "bf": 0}
    write_video(path, frames, options=options)


def _frames(task: _VideoTask) -> Iterator[NDArray[np.uint8]]:
    generator, settings = np.random.default_rng(task.seed), task.settings
    draw = SCENES[settings.scenes].draw
    for _ in range(task.num_scenes):
        yield from draw(task.subject, task.motion, settings.clip_length, generator, settings.size)
