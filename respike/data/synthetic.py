"""Synthetic videos: scenes of the demo dataset, drawn from a seed and written as H.264 files."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
"""Colours `[H, W, 3]` from 0 to 255, or one value a pixel `[H, W]`."""


def blend(under: Picture, mask: Picture, over: Picture) -> Picture:
    """Draw `over` on `under`, both `[H, W, 3]`, with the opacity `mask` `[H, W]`, 0 to 1."""
    blended: Picture = (under + mask[..., None] * (over - under)).astype(np.float32)
    return blended


def draw_background(size: int, generator: np.random.Generator) -> Picture:
    """Draw smooth noise at two scales, `[size, size, 3]`, 0 to 255: texture that a mover covers and uncovers."""
    picture = np.full((size, size, 3), generator.uniform(40, 110, 3), np.float32)
    for cells, strength in ((4, 30.0), (18, 14.0)):
        noise = generator.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    clipped: Picture = np.clip(picture, 0, 255)
    return clipped


def make_grid(size: int, x: float, y: float, angle: float, *, wrap: bool = False) -> tuple[Picture, Picture]:
    """Return pixel coordinates relative to (x, y), turned by `angle` radians; on a torus if `wrap`."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    across, down = columns - x, rows - y
    if wrap:
        across, down = (across + size / 2) % size - size / 2, (down + size / 2) % size - size / 2
    return math.cos(angle) * across + math.sin(angle) * down, math.cos(angle) * down - math.sin(angle) * across


def soften(distance: Picture) -> Picture:
    """Return a mask from signed distances in pixels: 1 inside (negative), 0 outside, one pixel of slope between."""
    mask: Picture = np.clip(0.5 - distance, 0, 1)
    return mask


@dataclass(frozen=True, kw_only=True)
class Dumbbell:
    """A mover of two balls and a bar, in pixels: centre to ball, radius of a ball, half the width of the bar.

    Its colour changes from the first to the last during a scene.
    """

    reach: float
    ball_radius: float
    half_width: float
    first_color: NDArray[np.float64]
    last_color: NDArray[np.float64]

    def mask(self, across: Picture, down: Picture, scale: float = 1.0) -> Picture:
        """Return the mask of the mover, `scale` times as large, on a grid relative to its centre."""
        reach, radius, half_width = scale * self.reach, scale * self.ball_radius, scale * self.half_width
        balls = np.hypot(abs(across) - reach, down) - radius
        bar = np.maximum(abs(across) - reach, abs(down) - half_width)
        return soften(np.minimum(balls, bar))

    def color(self, share: float) -> NDArray[np.float64]:
        """Return the colour after `share`, 0 to 1, of the scene."""
        return (1 - share) * self.first_color + share * self.last_color


def draw_dumbbell(size: int, generator: np.random.Generator, stoutness: float = 1.0) -> Dumbbell:
    """Draw the sizes and colours of a mover for frames of `size` pixels; `stoutness` scales the width of its parts."""
    # lighter than everything else in the scene: pixels that it covers brighten, pixels that it uncovers darken
    first_color, last_color = generator.uniform(185, 255, (2, 3))
    return Dumbbell(
        reach=size * generator.uniform(0.20, 0.25),
        ball_radius=stoutness * size * generator.uniform(0.065, 0.085),
        half_width=stoutness * size * generator.uniform(0.03, 0.05),
        first_color=first_color,
        last_color=last_color,
    )


@dataclass(frozen=True)
class _Pose:
    """Where a mover is, in pixels, how far it is turned, in radians, and how many times as large it is."""

    x: float
    y: float
    angle: float
    scale: float = 1.0


def _draw_motion(background: Picture, mover: Dumbbell, poses: Sequence[_Pose], brightness: Sequence[float]) -> Picture:
    """Draw a mover on a background: float32 `[T, size, size, 3]`, with a pose and a brightness for each frame."""
    frames = np.empty((len(poses), *background.shape), np.float32)
    for number, (pose, factor) in enumerate(zip(poses, brightness, strict=True)):
        mask = mover.mask(*make_grid(len(background), pose.x, pose.y, pose.angle, wrap=True), pose.scale)
        color = mover.color(number / max(1, len(poses) - 1)) * factor
        frames[number] = blend(background, mask, np.broadcast_to(color, background.shape))
    return frames


PROPS = ("disc", "square", "triangle", "cross")
MOTIONS = ("left", "right", "clockwise", "counterclockwise")
SIZE = 72
# largest movement from frame to frame: share of the side, radians
_MAX_STEP, _MAX_TURN = 0.065, 0.21


def draw_scene(
    prop: str, motion: str, num_frames: int, generator: np.random.Generator, size: int = SIZE
) -> NDArray[np.uint8]:
    """Draw one scene: uint8 RGB `[num_frames, size, size, 3]`, with a prop at rest and a mover in motion."""
    background = draw_background(size, generator)
    still = blend(background, *_prop(prop, size, generator))
    mover = draw_dumbbell(size, generator)
    poses = _plain_path(motion, num_frames, size, generator)
    return _to_pixels(_draw_motion(still, mover, poses, [1.0] * num_frames))


def _to_pixels(frames: Picture) -> NDArray[np.uint8]:
    return np.clip(frames, 0, 255).astype(np.uint8)


def _prop(prop: str, size: int, generator: np.random.Generator) -> tuple[Picture, Picture]:
    """Draw a shape with its own colour pattern at a random position: (mask, colours)."""
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
        wide = np.maximum(abs(across) - radius, abs(down) - radius / 3.2)
        tall = np.maximum(abs(down) - radius, abs(across) - radius / 3.2)
        distance, pattern = np.minimum(wide, tall), (across > 0) ^ (down > 0)
    hue = PROPS.index(prop)
    light, dark = np.roll([235.0, 200.0, 40.0], hue), np.roll([40.0, 30.0, 140.0], hue)
    if hue == 3:
        light, dark = np.array([245.0, 245.0, 245.0]), np.array([20.0, 20.0, 20.0])
    color = np.where(pattern[..., None], light, dark) + generator.normal(0, 12, 3)
    return soften(distance), color.astype(np.float32)


def _plain_path(motion: str, num_frames: int, size: int, generator: np.random.Generator) -> list[_Pose]:
    """Draw the pose of each frame: for every motion uniform on the torus and over all angles."""
    x, y = generator.uniform(0, size, 2)
    angle = generator.uniform(0, 2 * math.pi)
    speed = generator.uniform(0.6, 1)
    # rows run downwards, so a growing angle turns clockwise
    step, turn = {
        "left": (-_MAX_STEP, 0.0),
        "right": (_MAX_STEP, 0.0),
        "clockwise": (0.0, _MAX_TURN),
        "counterclockwise": (0.0, -_MAX_TURN),
    }[motion]
    return [_Pose(x + speed * step * size * number, y, angle + speed * turn * number) for number in range(num_frames)]


HARD_SUBJECTS = ("amber", "azure")
HARD_MOTIONS = ("left", "right", "clockwise", "counterclockwise", "growing", "shrinking", "swaying", "rocking")
_RIVALS = ("rose", "jade")
_COLORS = {"amber": (235, 165, 30), "azure": (40, 130, 240), "rose": (225, 60, 130), "jade": (40, 170, 90)}
_REST = "rest"
# shares of the side of the picture
_WINDOW, _BORDER = 0.34, 0.06
# largest change from frame to frame: share of the side of the window, radians, octaves of size
_HARD_MAX_STEP, _HARD_MAX_TURN, _MAX_GROWTH = 0.085, 0.30, 0.12
_MIN_SCALE, _STOUTNESS = 0.65, 1.7
_MIN_BRIGHTNESS = 0.75
# how a motion changes position, angle and size, and whether it reverses half-way, after either direction
_MOTIONS = {
    "left": (-1, 0, 0, False),
    "right": (1, 0, 0, False),
    # rows run downwards, so a growing angle turns clockwise
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
    """Draw one scene: uint8 RGB `[num_frames, size, size, 3]`.

    Three of four quarters hold a window with a coloured border. In the window with the colour `subject` a mover follows
    `motion`, in another one a different motion; in the third a mover at rest changes its brightness.
    """
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
    return _to_pixels(frames)


def _draw_window(motion: str, num_frames: int, side: int, generator: np.random.Generator) -> Picture:
    """Draw a mover on its own background: float32 `[num_frames, side, side, 3]`."""
    background, mover = draw_background(side, generator), draw_dumbbell(side, generator, _STOUTNESS)
    poses = _hard_path(motion, num_frames, side, generator)
    flickers = motion == _REST
    brightness = [generator.uniform(_MIN_BRIGHTNESS, 1) if flickers else 1.0 for _ in range(num_frames)]
    return _draw_motion(background, mover, poses, brightness)


def _hard_path(motion: str, num_frames: int, side: int, generator: np.random.Generator) -> list[_Pose]:
    """Draw the pose of each frame: for every motion uniform over positions, angles and an octave of sizes."""
    x, y = generator.uniform(0, side, 2)
    angle, octave = generator.uniform(0, 2 * math.pi), generator.uniform(0, 1)
    speed, direction = generator.uniform(0.6, 1), int(generator.choice((-1, 1)))
    step, turn, growth, reverses = _MOTIONS[motion]
    poses = []
    for number in range(num_frames):
        distance = speed * (direction * min(number, num_frames - number) if reverses else number)
        poses.append(
            _Pose(
                x=x + distance * step * _HARD_MAX_STEP * side,
                y=y,
                angle=angle + distance * turn * _HARD_MAX_TURN,
                scale=_MIN_SCALE * 2 ** ((octave + distance * growth * _MAX_GROWTH) % 1),
            )
        )
    return poses


_FINISHED_FILE, _STARTED_FILE = "demo.json", ".begun.json"


@dataclass(frozen=True, kw_only=True)
class SceneSet:
    """A kind of scenes: each combination of a subject and a motion is a class.

    `draw(subject, motion, num_frames, generator, size)` returns uint8 RGB `[num_frames, size, size, 3]`.
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
    """Videos for each class, scenes for each video, frames in a scene, side in pixels; `scenes` names one of SCENES.

    Raises SettingError on a number that is too small and on unknown scenes.
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
            raise SettingError(f"scenes are {self.scenes!r}", f"choose from {', '.join(SCENES)}", setting="scenes")
        for name, value in asdict(self).items():
            least = 0 if name in ("seed", "crf") else 1
            if name != "scenes" and value < least:
                raise SettingError(f"{name} is {value}", f"it must be at least {least}", setting=name)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, without `scenes` if they are plain, as in earlier versions."""
        return {name: value for name, value in asdict(self).items() if value != PLAIN}


def choose_settings(scenes: str, clip_length: int, num_videos: int | None) -> DemoSettings:
    """Return settings to compare networks on: `num_videos` for each class in train (None: default), half in test.

    Raises SettingError as DemoSettings does.
    """
    settings = DemoSettings(scenes=scenes, clip_length=clip_length)
    if scenes != PLAIN:
        # a few hundred test clips do not show differences of a few percent between networks
        settings = replace(settings, test_scenes=settings.train_scenes)
    if num_videos is None:
        return settings
    return replace(settings, train_videos=num_videos, test_videos=max(1, num_videos // 2))


@dataclass(frozen=True, kw_only=True)
class _VideoTask:
    """One video to write."""

    path: Path
    subject: str
    motion: str
    num_scenes: int
    seed: tuple[int, ...]
    settings: DemoSettings


def demo_classes(scenes: str = PLAIN) -> tuple[str, ...]:
    """Return the sorted class names of one of SCENES, 16 in each: `subject-motion`."""
    chosen = SCENES[scenes]
    return tuple(sorted(f"{subject}-{motion}" for subject in chosen.subjects for motion in chosen.motions))


def write_demo(root: Path, settings: DemoSettings, *, num_workers: int = 1, progress: Progress = SILENCE) -> None:
    """Write the videos as `root/{train,test}/<class>/NN.mp4`; finished videos of the same settings are kept.

    Frames depend only on the settings, not on `num_workers`. Raises RespikeError where ffmpeg or the disk fails.
    """
    finished, started = root / _FINISHED_FILE, root / _STARTED_FILE
    wanted = canonical_json(settings.to_json())
    if finished.is_file() and finished.read_text() == wanted:
        return
    tasks = _plan_videos(root, settings)
    finished.unlink(missing_ok=True)
    # after a stop with the same settings only unfinished videos, whose names begin with a dot, are removed
    _remove(root, ".*.mp4" if started.is_file() and started.read_text() == wanted else "*.mp4")
    for folder in {task.path.parent for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(started, wanted)
    tasks = [task for task in tasks if not task.path.exists()]
    with progress.task("make videos", total=len(tasks), unit="videos") as task:
        for _ in local.run(Job(function=_write), tasks, num_workers, lambda worker, note: task.advance()):
            pass
    write_atomically(finished, wanted)
    started.unlink()


def _remove(root: Path, pattern: str) -> None:
    """Remove videos of all SCENES whose names match, and class folders that are then empty, since each is a class."""
    for subset, scenes in itertools.product(("train", "test"), SCENES):
        for name in demo_classes(scenes):
            folder = root / subset / name
            for path in folder.glob(pattern):
                path.unlink()
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def write_demo_video(path: Path, settings: DemoSettings) -> None:
    """Write one video of four scenes, with each prop and each motion once. Raises RespikeError where ffmpeg fails."""
    generator = np.random.default_rng(settings.seed)
    pairs = zip(PROPS, MOTIONS, strict=True)
    scenes = (draw_scene(*pair, settings.clip_length, generator, settings.size) for pair in pairs)
    _encode(path, itertools.chain.from_iterable(scenes), settings)


def _plan_videos(root: Path, settings: DemoSettings) -> list[_VideoTask]:
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
    # renamed at the end: half a video must not look finished
    unfinished = task.path.with_name(f".{task.path.name}")
    _encode(unfinished, _frames(task), task.settings)
    unfinished.replace(task.path)
    report("written")


def _encode(path: Path, frames: Iterable[NDArray[np.uint8]], settings: DemoSettings) -> None:
    # one group of pictures for each scene and no B-frames: no frame depends on another scene
    options: dict[str, str | int] = {"crf": settings.crf, "g": settings.clip_length, "preset": "veryfast"}
    options |= {"x264-params": f"keyint={settings.clip_length}:scenecut=0", "bf": 0}
    write_video(path, frames, options=options)


def _frames(task: _VideoTask) -> Iterator[NDArray[np.uint8]]:
    generator, settings = np.random.default_rng(task.seed), task.settings
    draw = SCENES[settings.scenes].draw
    for _ in range(task.num_scenes):
        yield from draw(task.subject, task.motion, settings.clip_length, generator, settings.size)
