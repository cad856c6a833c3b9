"""Inputs: the data set, network and clips that a workflow starts from."""

import dataclasses
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from respike.common.errors import RespikeError
from respike.common.processes import usable_cpus
from respike.common.text import did_you_mean
from respike.data.index import SHARDS_ROOT
from respike.zoo.run_folder import RUNS_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from respike.common.errors import UnreadableVideoError
    from respike.data import ShardDataset
    from respike.data.prepare_config import PrepareConfig
    from respike.types import Batch, DataSpec, EventClip
    from respike.zoo.checkpoint import CheckpointSpec
    from respike.zoo.nn.respike import ReSpike


def find_data(given: str | None) -> str:
    """Return the data set that was given, else the only one under `shards/`.

    Raises RespikeError that lists them where there are several, and that names the way to make one where none is.
    """
    if given is not None:
        return given
    found = sorted(path.parent for path in SHARDS_ROOT.glob("*/dataset.json"))
    if not found:
        raise RespikeError(
            f"there is no data set under {SHARDS_ROOT}/",
            "make one first, as with `respike prepare ucf101`, or say where it is with --data",
        )
    if len(found) > 1:
        raise RespikeError(
            f"{SHARDS_ROOT}/ holds {len(found)} data sets: {', '.join(path.name for path in found)}",
            f"choose one, as with --data {found[0]}",
        )
    return str(found[0])


def choose_run_folder(given: Path | None, model: str, data: "DataSpec") -> Path:
    """Return the folder that was given, else `runs/<model>-<dataset>[-splitN]`, numbered from 2 where it is taken."""
    if given is not None:
        return given
    split = "" if data.split is None else f"-split{data.split}"
    name = f"{model}-{data.dataset}{split}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(RUNS_ROOT / name for name in names if not (RUNS_ROOT / name).exists())


def choose_num_workers(given: int | None, device_type: str) -> int:
    """Return the loader's processes that were given, else 0 on a CPU and up to 8 beside an accelerator.

    On a CPU the network takes every core and far longer than the loader, so that processes would only get in its way.
    """
    if given is not None:
        return given
    return 0 if device_type == "cpu" else max(1, min(8, usable_cpus() - 1))


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network in evaluation mode; `spec` says what its weights are, None where they come from chance."""

    title: str
    model: "ReSpike"
    spec: "CheckpointSpec | None"


def open_checkpoint(given: str, device: "torch.device | str") -> "tuple[ReSpike, CheckpointSpec]":
    """Load the weights that `given` names: a run's folder, a checkpoint, a name of the zoo or an address.

    Raises CheckpointError where there are none or they are damaged, RespikeError where `given` names a network
    without weights.
    """
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.models import list_models

    if given in list_models() and not Path(given).exists():
        raise RespikeError(f"{given} is a network without weights", "name a run's folder or a .safetensors file")
    return load_checkpoint(given, device)


def open_network(given: str, device: "torch.device | str", *, num_classes: int) -> Network:
    """Load the checkpoint that `given` names, else build the network of that name with weights from chance.

    `num_classes` is for the latter. Raises RespikeError that lists the names where `given` is neither.
    """
    import torch

    from respike.zoo.checkpoint import names_near
    from respike.zoo.factory import create_model
    from respike.zoo.models import list_models
    from respike.zoo.weights import names_weights

    names = list_models()
    if given in names and not Path(given).exists():
        torch.manual_seed(0)
        return Network(title=given, model=create_model(given, num_classes=num_classes).to(device).eval(), spec=None)
    if not names_weights(given):
        asked = did_you_mean(given, [*names, *names_near(Path(given))])
        raise RespikeError(
            f"there is no checkpoint and no network {given!r}",
            f"{asked}name a run's folder, a .safetensors file, or one of {', '.join(names)}",
        )
    model, spec = open_checkpoint(given, device)
    return Network(title=given, model=model, spec=spec)


def settings_of(spec: "CheckpointSpec") -> "PrepareConfig":
    """How the clips that a checkpoint was trained on were prepared. Raises RespikeError where it does not say."""
    import dataclasses

    from respike.data.prepare_config import PrepareConfig

    names = {field.name for field in dataclasses.fields(PrepareConfig)}
    given = {name: value for name, value in spec.data.settings.items() if name in names}
    if lacking := [name for name in ("stride", "clip_length", "threshold", "color") if name not in given]:
        raise RespikeError(
            f"the checkpoint does not say with which {lacking[0]} its clips were prepared",
            "train it on prepared shards",
        )
    try:
        return PrepareConfig(**given)
    except TypeError as error:
        raise RespikeError(f"the checkpoint's prepare settings are of the wrong type: {error}") from error


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


def demo_clips(settings: "PrepareConfig", *, image_size: int) -> "list[EventClip]":
    """Make a video of four moving scenes, at least `image_size` pixels wide, and prepare a clip of each."""
    from respike.data.clip_encoder import stream_clips
    from respike.data.synthetic import DemoSettings, write_demo_video

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


def find_clip(source: Path, number: int, settings: "PrepareConfig") -> "EventClip":
    """Return clip `number`, from 0, of a folder of shards or of a video. Raises RespikeError where there is none."""
    from respike.data import open_shards

    if source.is_dir():
        dataset = open_shards(source)
        if not 0 <= number < len(dataset):
            raise RespikeError(f"{source} has no clip {number}", f"it holds {len(dataset)}, counted from 0")
        return dataset[number]
    return _clip_of_video(source, number, settings)


def _clip_of_video(path: Path, number: int, settings: "PrepareConfig") -> "EventClip":
    from respike.common.errors import UnreadableVideoError
    from respike.data.clip_encoder import stream_clips

    collector = _Collector(number)
    try:
        stream_clips(path, settings, collector)
    except UnreadableVideoError as error:
        raise RespikeError(f"{path}: {error}", next_step(path, error)) from error
    if not collector.clips:
        raise RespikeError(f"{path} has no clip {number}", f"it makes {collector.num_clips}, counted from 0")
    return collector.clips[0]
