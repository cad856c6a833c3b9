"""Clips to look at: from shards, from a video, or of scenes made on the spot."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from respike.errors import RespikeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respike.data import ShardDataset
    from respike.data.settings import PrepareSettings
    from respike.errors import UnreadableVideoError
    from respike.sample import Batch, EventClip

_DEMO_SIZE = 256
_NEXT_STEP = "see whether it is a video, and whole; fetch it again, or re-encode it, as by `ffmpeg -i OLD NEW.mp4`"


class _Collector:
    """Keeps the clips of a video, all or the one of a number."""

    def __init__(self, number: int | None = None) -> None:
        self._number = number
        self.clips: list[EventClip] = []
        self.num_clips = 0

    def take(self, clip: "EventClip") -> None:
        self.num_clips += 1
        if self._number in (None, clip.info.clip_index):
            self.clips.append(clip)

    def restart(self) -> None:
        self.clips, self.num_clips = [], 0


def next_step(path: Path, error: "UnreadableVideoError") -> str:
    """What to do about a video that cannot be used."""
    if path.is_dir():
        return f"it is a folder: name the videos in it, as {path}/*.mp4"
    return "check the path" if error.stage == "missing" else _NEXT_STEP


def demo_clips(settings: "PrepareSettings", *, image_size: int) -> "list[EventClip]":
    """Make a video of four moving scenes, at least `image_size` pixels wide, and prepare a clip of each."""
    from respike.data.demo import DemoSettings, write_demo_video
    from respike.data.stream import stream_clips

    num_frames = settings.clip_length * settings.frame_stride
    scenes = DemoSettings(clip_length=num_frames, size=max(image_size, min(settings.short_side, _DEMO_SIZE)))
    collector = _Collector()
    with tempfile.TemporaryDirectory(prefix="respike-") as folder:
        path = Path(folder) / "demo.mp4"
        write_demo_video(path, scenes)
        stream_clips(path, dataclasses.replace(settings, sampling="dense", clip_step=None), collector)
    return collector.clips


def spread(dataset: "ShardDataset", most: int) -> "ShardDataset":
    """At most `most` clips, spread evenly over a set."""
    num_chosen = min(most, len(dataset))
    return dataset.select([place * len(dataset) // num_chosen for place in range(num_chosen)])


def batches_of(clips: "list[EventClip]", image_size: int, eval_crop: float) -> "Iterator[Batch]":
    """Clips one by one as batches, as an evaluation would see them: squares of `eval_crop` of the short side."""
    from respike.data.loader import make_batch

    return (make_batch([clip], image_size, eval_crop) for clip in clips)


def find_clip(source: Path, number: int, settings: "PrepareSettings") -> "EventClip":
    """Return clip `number`, from 0, of a folder of shards or of a video. Raises RespikeError where there is none."""
    from respike.data import open_shards

    if source.is_dir():
        dataset = open_shards(source)
        if not 0 <= number < len(dataset):
            raise RespikeError(f"{source} has no clip {number}", f"it holds {len(dataset)}, counted from 0")
        return dataset[number]
    return _clip_of_video(source, number, settings)


def _clip_of_video(path: Path, number: int, settings: "PrepareSettings") -> "EventClip":
    from respike.data.stream import stream_clips
    from respike.errors import UnreadableVideoError

    collector = _Collector(number)
    try:
        stream_clips(path, settings, collector)
    except UnreadableVideoError as error:
        raise RespikeError(f"{path}: {error}", next_step(path, error)) from error
    if not collector.clips:
        raise RespikeError(f"{path} has no clip {number}", f"it makes {collector.num_clips}, counted from 0")
    return collector.clips[0]
