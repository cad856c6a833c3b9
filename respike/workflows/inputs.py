"""Inputs: the data set, network and clips that a workflow starts from."""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from respike.common.errors import RespikeError, UnreadableVideoError
from respike.common.files import RUNS_ROOT, SHARDS_ROOT, find_prepared
from respike.common.processes import usable_cpus
from respike.common.progress import SILENCE, Progress
from respike.common.text import did_you_mean
from respike.data.clip_encoder import stream_clips
from respike.data.dataset import ShardDataset, open_shards
from respike.data.loader import make_batch
from respike.data.prepare_config import PrepareConfig
from respike.data.synthetic import DemoSettings, write_demo_video
from respike.types import Batch, DataSpec, EventClip
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, suggest_weights
from respike.zoo.factory import create_model
from respike.zoo.models import list_models
from respike.zoo.nn.respike import ReSpike
from respike.zoo.weights import names_weights

_DEMO_SIZE = 256
_MOST_WORKERS = 8


def find_data(given: str | Path | None) -> str:
    """Return the data set that was given, or else the only one under `shards/`.

    Raises RespikeError that lists them if there are several, and that names the next step if there is none.
    """
    if given is not None:
        return str(given)
    found = find_prepared()
    if not found:
        raise RespikeError(
            f"there is no data set under {SHARDS_ROOT}/",
            "make one first, for example with `respike prepare ucf101`, or name the folder of one as data",
        )
    if len(found) > 1:
        raise RespikeError(
            f"{SHARDS_ROOT}/ holds {len(found)} data sets: {', '.join(path.name for path in found)}",
            f"name one of them as data, for example {found[0]}",
        )
    return str(found[0])


def choose_run_folder(given: Path | None, model: str, data: DataSpec) -> Path:
    """Return the folder that was given, or else `runs/MODEL-DATASET[-splitN]`, with a number if that is taken."""
    if given is not None:
        return given
    split = "" if data.split is None else f"-split{data.split}"
    name = f"{model}-{data.dataset}{split}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(RUNS_ROOT / name for name in names if not (RUNS_ROOT / name).exists())


def choose_num_workers(given: int | None, device_type: str) -> int:
    """Return the number of loader processes that was given, or else 0 on a CPU and up to 8 with an accelerator.

    On a CPU the network uses every core and takes far longer than the loader. More processes would only slow it down.
    """
    if given is not None:
        return given
    return 0 if device_type == "cpu" else max(1, min(_MOST_WORKERS, usable_cpus() - 1))


def load_model(
    checkpoint: str | Path, device: torch.device | str = "cpu", *, progress: Progress = SILENCE
) -> tuple[ReSpike, CheckpointSpec]:
    """Load a trained network in evaluation mode on `device`. Return it with its spec: classes, data and settings.

    `checkpoint` is the folder of a run, a .safetensors file, a name from `respike zoo list`, or the address of a
    published folder. The last two are downloaded once.

    Raises CheckpointError if there are no such weights or if they are damaged, and RespikeError if `checkpoint` is
    the name of a network without weights.
    """
    if str(checkpoint) in list_models() and not Path(checkpoint).exists():
        raise RespikeError(
            f"{checkpoint} is the name of a network without weights", "name the folder of a run or a .safetensors file"
        )
    return load_checkpoint(checkpoint, device, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network in evaluation mode; `spec` describes its weights, None if they are random."""

    title: str
    model: ReSpike
    spec: CheckpointSpec | None


def open_network(given: str, device: torch.device | str, *, num_classes: int) -> Network:
    """Load the checkpoint `given`, or build the network of that name with random weights and `num_classes` classes.

    Raises RespikeError that lists the names if `given` is neither.
    """
    names = list_models()
    if given in names and not Path(given).exists():
        torch.manual_seed(0)
        return Network(title=given, model=create_model(given, num_classes=num_classes).to(device).eval(), spec=None)
    if not names_weights(given):
        suggestion = did_you_mean(given, [*names, *suggest_weights(Path(given))])
        raise RespikeError(
            f"there is no checkpoint and no network {given!r}",
            f"{suggestion}name the folder of a run, a .safetensors file, or one of {', '.join(names)}",
        )
    model, spec = load_model(given, device)
    return Network(title=given, model=model, spec=spec)


def prepare_config_of(spec: CheckpointSpec) -> PrepareConfig:
    """Return the settings that prepared the training clips of a checkpoint. Raises RespikeError if some are missing."""
    names = {field.name for field in dataclasses.fields(PrepareConfig)}
    given = {name: value for name, value in spec.data.settings.items() if name in names}
    for name in ("stride", "clip_length", "threshold", "color"):
        if name not in given:
            raise RespikeError(
                f"the checkpoint does not say with which {name} its clips were prepared", "train on prepared shards"
            )
    return PrepareConfig(**given)


class _ClipCollector:
    """Keeps the clips of a video that is being read: all, or only the one with a number."""

    def __init__(self, number: int | None = None) -> None:
        self._number = number
        self.clips: list[EventClip] = []
        self.num_clips = 0

    def take(self, clip: EventClip) -> None:
        self.num_clips += 1
        if self._number in (None, clip.info.clip_index):
            self.clips.append(clip)

    def restart(self) -> None:
        self.clips, self.num_clips = [], 0


def find_clip(source: Path, number: int, settings: PrepareConfig) -> EventClip:
    """Return clip `number`, from 0, of a folder of shards or of a video, which is prepared with `settings`.

    Raises RespikeError if there is no such clip, or if the video cannot be read.
    """
    if source.is_dir():
        dataset = open_shards(source)
        if not 0 <= number < len(dataset):
            raise RespikeError(f"{source} has no clip {number}", f"it holds {len(dataset)} clips, counted from 0")
        return dataset[number]
    collector = _ClipCollector(number)
    try:
        stream_clips(source, settings, collector)
    except UnreadableVideoError as error:
        raise RespikeError(f"{source}: {error}", next_step(source, error)) from error
    if not collector.clips:
        raise RespikeError(f"{source} has no clip {number}", f"it gives {collector.num_clips} clips, counted from 0")
    return collector.clips[0]


def next_step(path: Path, error: UnreadableVideoError) -> str:
    """Return what to do about a video that cannot be used."""
    if path.is_dir():
        return f"it is a folder: name the videos in it, such as {path}/*.mp4"
    if error.stage == "missing":
        return "check the path"
    return "check that it is a whole video; download it again, or encode it again with `ffmpeg -i OLD NEW.mp4`"


def demo_clips(settings: PrepareConfig, *, image_size: int) -> list[EventClip]:
    """Make a video of four moving scenes, at least `image_size` pixels wide, and prepare a clip of each scene."""
    num_frames = settings.clip_length * settings.frame_stride
    scenes = DemoSettings(clip_length=num_frames, size=max(image_size, min(settings.short_side, _DEMO_SIZE)))
    collector = _ClipCollector()
    with tempfile.TemporaryDirectory(prefix="respike-") as folder:
        path = Path(folder) / "demo.mp4"
        write_demo_video(path, scenes)
        stream_clips(path, dataclasses.replace(settings, sampling="dense", clip_step=None), collector)
    return collector.clips


def choose_spread_clips(dataset: ShardDataset, most: int) -> ShardDataset:
    """Return at most `most` clips, spread evenly over a data set."""
    num_chosen = min(most, len(dataset))
    return dataset.select([place * len(dataset) // num_chosen for place in range(num_chosen)])


def batches_of(clips: list[EventClip], image_size: int, eval_crop: float) -> Iterator[Batch]:
    """Return one batch for each clip, as an evaluation sees it: a square of `eval_crop` of the short side."""
    return (make_batch([clip], image_size, eval_crop) for clip in clips)
