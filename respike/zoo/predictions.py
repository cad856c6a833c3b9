"""Predictions: a network's class probabilities, with their provenance, in memory and as a file.

A view is one crop of one clip. Shapes: `V` views, `K` classes, `B` batch.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from respike import __version__
from respike.common.config import from_plain, to_plain
from respike.common.errors import RespikeError, SettingError
from respike.common.files import write_atomically
from respike.types import Batch
from respike.zoo.metrics import average_rows

_FORMAT = 1
_HINT = "give a file that `respike score --predictions FILE` wrote, or score again"
_DTYPES = {
    "probabilities": torch.float32,
    "labels": torch.int64,
    "videos": torch.int64,
    "clips": torch.int64,
    "crops": torch.int64,
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a score comes from.

    The data:

    - `dataset`, `split`, `subset`; `settings` of `respike prepare`; `fingerprint` of the shards.
    - `num_listed`: videos of all subsets; `num_skipped`: those of them that are missing or broken and so not scored.
    - `missing`: those of the subset by name; None if the shards do not say to which subset they belong.

    The network:

    - `checkpoint`: as it was given; `weights_sha256`; `network` and `branches`; `image_size` in pixels; `epoch`.
    - `trained_on`: the fingerprint of the shards that it was trained on.

    The method:

    - `clips_asked`: clips of a video, None for all; `crops` of a clip; `eval_crop`: a crop's side as a share of the
      short side.
    - `device`; `amp`: mixed precision, None if an earlier version did not save it; `respike_version`, `torch_version`.
    - `overruled`: reasons why checkpoint and data do not fit, if the score was forced.
    """

    dataset: str
    split: int | None
    subset: str
    settings: Mapping[str, Any]
    fingerprint: str
    num_listed: int
    num_skipped: int
    checkpoint: str
    weights_sha256: str
    network: str
    branches: str
    image_size: int
    epoch: int
    trained_on: str
    clips_asked: int | None
    crops: int
    device: str
    overruled: tuple[str, ...] = ()
    missing: tuple[str, ...] | None = None
    eval_crop: float = 1.0
    amp: str | None = None
    respike_version: str = __version__
    torch_version: str = field(default_factory=lambda: str(torch.__version__))


def describe_device(device: torch.device) -> str:
    """Return the device with the name of its chip: `cpu (x86_64)`, `cuda (NVIDIA H100 80GB HBM3)`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"


@dataclass(frozen=True, kw_only=True)
class Row:
    """The view that a row of probabilities belongs to, and its label."""

    video: str
    clip: int
    crop: int
    label: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Probabilities of views, sorted by video, clip and crop, each view once.

    `probabilities` float32 `[V, K]`, the sum of a row is 1. All others are int64 `[V]`: `labels`, `videos` (indices in
    `video_ids`), `clips`, `crops`.
    """

    probabilities: Tensor
    labels: Tensor
    video_ids: tuple[str, ...]
    videos: Tensor
    clips: Tensor
    crops: Tensor

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return int(self.probabilities.shape[1])


def collect(probabilities: Sequence[Tensor], rows: Sequence[Row]) -> Predictions:
    """Sort rows of probabilities (tensors `[any, K]`, in the order of `rows`). Of equal views the first one counts.

    Raises RespikeError if there is no row.
    """
    row_numbers = {(row.video, row.clip, row.crop): number for number, row in reversed(list(enumerate(rows)))}
    if not row_numbers:
        raise RespikeError("there is no clip to score", "choose a subset that holds clips")
    views = sorted(row_numbers)
    order = [row_numbers[view] for view in views]
    video_ids = tuple(sorted({video for video, _, _ in views}))
    video_numbers = {video: number for number, video in enumerate(video_ids)}
    return Predictions(
        probabilities=torch.cat(list(probabilities))[torch.tensor(order)],
        labels=torch.tensor([rows[number].label for number in order]),
        video_ids=video_ids,
        videos=torch.tensor([video_numbers[video] for video, _, _ in views]),
        clips=torch.tensor([clip for _, clip, _ in views]),
        crops=torch.tensor([crop for _, _, crop in views]),
    )


def merge_crops(predictions: Predictions) -> Predictions:
    """Return predictions with one row for each clip: the mean probabilities of its crops, as crop 0."""
    if int(predictions.crops.max()) == 0:
        return predictions
    numbers: dict[tuple[int, int], int] = {}
    clips_of_rows = zip(predictions.videos.tolist(), predictions.clips.tolist(), strict=True)
    groups = torch.tensor([numbers.setdefault(clip, len(numbers)) for clip in clips_of_rows])
    probabilities, labels = average_rows(predictions.probabilities, predictions.labels, groups)
    return Predictions(
        probabilities=probabilities,
        labels=labels,
        video_ids=predictions.video_ids,
        videos=torch.tensor([video for video, _ in numbers]),
        clips=torch.tensor([clip for _, clip in numbers]),
        crops=torch.zeros(len(numbers), dtype=torch.int64),
    )


def save_predictions(
    path: Path, predictions: Predictions, classes: Sequence[str], provenance: Provenance | None = None
) -> None:
    """Write a safetensors file whose metadata hold video ids, classes and provenance as JSON.

    Raises RespikeError if the disk refuses.
    """
    tensors = {name: getattr(predictions, name).contiguous() for name in _DTYPES}
    facts = {
        "format": _FORMAT,
        "video_ids": list(predictions.video_ids),
        "classes": list(classes),
        "provenance": None if provenance is None else to_plain(provenance),
    }
    # ASCII, since an id may hold bytes that are not text
    text = json.dumps(facts, sort_keys=True)
    metadata = {"respike": text, "sha256": _digest(text, tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata=metadata))


def load_predictions(path: Path) -> tuple[Predictions, tuple[str, ...], Provenance | None]:
    """Read a file of `save_predictions`: the predictions, the classes and the provenance.

    Raises RespikeError if the file is missing, of another kind, damaged or changed.
    """
    if not path.is_file():
        raise RespikeError(f"there are no predictions {path}", _HINT)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _DTYPES if name in file.keys()}  # noqa: SIM118
        facts = json.loads(metadata["respike"])
        if facts["format"] != _FORMAT:
            raise ValueError(f"it is of format {facts['format']}, this version of respike reads format {_FORMAT}")
        if metadata["sha256"] != _digest(metadata["respike"], tensors):
            raise ValueError("it was changed or damaged after it was written")
        _check_tensors(tensors, facts)
        predictions = Predictions(video_ids=tuple(facts["video_ids"]), **tensors)
        saved = facts["provenance"]
        provenance = None if saved is None else from_plain(Provenance, saved, "provenance")
        return predictions, tuple(facts["classes"]), provenance
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError, SettingError) as error:
        raise RespikeError(f"{path} holds no predictions: {error}", _HINT) from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _check_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Raise ValueError unless a score can be computed from the tensors."""
    for name, dtype in _DTYPES.items():
        if name not in tensors:
            raise ValueError(f"it lacks {name}")
        if tensors[name].dtype != dtype or tensors[name].dim() != (2 if name == "probabilities" else 1):
            raise ValueError(f"{name} is {tensors[name].dtype} {list(tensors[name].shape)}")
    num_views, num_classes = tensors["probabilities"].shape
    if num_classes != len(facts["classes"]) or any(len(tensor) != num_views for tensor in tensors.values()):
        raise ValueError("its parts do not have the same size")
    for name, end in (("labels", num_classes), ("videos", len(facts["video_ids"]))):
        values = tensors[name]
        if not len(values) or int(values.min()) < 0 or int(values.max()) >= end:
            raise ValueError(f"{name} are not within 0 to {end - 1}")
    sums = tensors["probabilities"].sum(dim=1)
    if not (tensors["probabilities"] >= 0).all() or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError("probabilities do not sum to 1")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A class and its probability, 0 to 1."""

    class_name: str
    probability: float


def best_guesses(probabilities: Tensor, classes: Sequence[str], most: int) -> tuple[Guess, ...]:
    """Return the `most` most probable classes, or all if there are fewer, the most probable first.

    `probabilities` is `[K]`. Classes of equal probability come in the order of their labels.
    """
    order = torch.argsort(probabilities, descending=True, stable=True)[:most].tolist()
    return tuple(Guess(class_name=classes[label], probability=float(probabilities[label])) for label in order)


class VideoVote:
    """The mean probabilities of a video's clips so far. Its memory use does not grow with the number of clips."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._sum: Tensor | None = None
        self.num_clips = 0

    def add(self, batch: Batch) -> Tensor:
        """Run the network on clips; return their probabilities `[B, K]` on the CPU.

        The network keeps its mode. Raises RespikeError if a logit is not finite.
        """
        moved = batch.to(self._device)
        with torch.no_grad():
            logits = self._model(moved.keys, moved.residuals, moved.color).float().cpu()
        if not bool(logits.isfinite().all()):
            raise RespikeError(
                f"the network's output for a clip of {batch.video_ids[0]} is not a finite number",
                "the weights are damaged or the training diverged: use an earlier checkpoint",
            )
        probabilities: Tensor = logits.softmax(dim=1)
        # in float64, so that an hour of clips adds no rounding error
        total = probabilities.double().sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        self.num_clips += len(probabilities)
        return probabilities

    def probabilities(self) -> Tensor:
        """Return the video's probabilities `[K]`, float32. Raises RespikeError if no clip was added."""
        if self._sum is None:
            raise RespikeError("the video has no clip", "take a longer one")
        return (self._sum / self.num_clips).float()
