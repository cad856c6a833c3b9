"""The demo data set: real H.264 videos of classes that take both branches to tell apart.

Of the `plain` scenes a class is one of 4 props, at rest (key frames show it, events hardly do), times one of 4 motions
of something else (events show it, no single key frame does). Of the `hard` ones it is which of several moving things
moves how (`demo_hard.py`). Each video holds many scenes of one clip's length, cut hard, of one class.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respike.data.demo_hard import HARD_MOTIONS, HARD_SUBJECTS, draw_hard_scene
from respike.data.demo_scene import MOTIONS, PROPS, SIZE, draw_scene
from respike.data.engines import local
from respike.data.engines.base import Job, Report
from respike.data.video_writer import write_video
from respike.errors import SettingError
from respike.files import canonical_json, write_atomically
from respike.progress import SILENCE, Progress

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
