"""Predictions: probabilities a view, a clip and a video, with their provenance, in memory and on disk."""

import dataclasses
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
from respike.common.errors import RespikeError
from respike.common.files import write_atomically
from respike.types import Batch
from respike.zoo.metrics import average_rows


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What lies behind a score.

    - The data: `dataset`, `split`, `subset`, `settings` of `respike prepare`, `fingerprint`; of its videos, all
      subsets together, `num_listed` and `num_skipped` (missing or broken, so that nothing could be scored); `missing`
      names those of the subset, None where the shards do not say of which subset they are.
    - The network: `checkpoint` as it was named, `weights_sha256`, `network`, `branches`, `image_size` in pixels,
      `epoch`, and the fingerprint of the data it was `trained_on`.
    - How: `clips_asked` of a video (None: all stored), `crops` of a clip, the side of a crop as a share of the short
      side, `eval_crop`; `device`; `amp`, the mixed precision, None where an earlier respike did not say;
      `respike_version`, `torch_version`.
    - `overruled`: the reasons for which checkpoint and data do not fit, where the score was forced.
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

    def to_json(self) -> dict[str, Any]:
        """The provenance as plain JSON values."""
        lists = {"overruled": list(self.overruled), "missing": None if self.missing is None else list(self.missing)}
        return dataclasses.asdict(self) | {"settings": dict(self.settings)} | lists

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Provenance":
        """Read what `to_json` gave. Raises RespikeError that names a missing or unknown field."""
        try:
            missing = value.get("missing")
            lists = {
                "overruled": tuple(value["overruled"]),
                "missing": None if missing is None else tuple(map(str, missing)),
            }
            return cls(**{**value, **lists})
        except (KeyError, TypeError) as error:
            raise RespikeError(f"the provenance does not hold what it should: {error}") from error


def describe_device(device: torch.device) -> str:
    """The device with the name of its chip: `cpu (x86_64)`, `cuda (NVIDIA H100 80GB HBM3)`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"


_FORMAT = 1
_HINT = "give a file that `respike score --predictions FILE` wrote, or score again"
_DTYPES = {"probabilities": torch.float32, "labels": torch.int64, "videos": torch.int64}
_DTYPES |= {"clips": torch.int64, "crops": torch.int64}


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Views in the order of (video, clip, crop), each once.

    `probabilities` float32 `[V, K]`, a row's sum 1; `labels` int64 `[V]`; `videos` int64 `[V]`, places in `video_ids`;
    `clips` and `crops` int64 `[V]`.
    """

    probabilities: Tensor
    labels: Tensor
    video_ids: tuple[str, ...]
    videos: Tensor
    clips: Tensor
    crops: Tensor

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.probabilities.shape[1])


@dataclass(frozen=True, kw_only=True)
class Row:
    """Which view a row of probabilities is of, and its label."""

    video: str
    clip: int
    crop: int
    label: int


def collect(probabilities: Sequence[Tensor], rows: Sequence[Row]) -> Predictions:
    """Bring rows of probabilities (tensors `[any, K]`, in the order of `rows`) into order, the first of equals kept.

    Raises RespikeError where there is none.
    """
    places = {(row.video, row.clip, row.crop): place for place, row in reversed(list(enumerate(rows)))}
    if not places:
        raise RespikeError("there is no clip to score", "choose a subset that holds clips")
    views = sorted(places)
    order = [places[view] for view in views]
    video_ids = tuple(sorted({video for video, _, _ in views}))
    number_of = {video: number for number, video in enumerate(video_ids)}
    return Predictions(
        probabilities=torch.cat(list(probabilities))[torch.tensor(order)],
        labels=torch.tensor([rows[place].label for place in order]),
        video_ids=video_ids,
        videos=torch.tensor([number_of[video] for video, _, _ in views]),
        clips=torch.tensor([clip for _, clip, _ in views]),
        crops=torch.tensor([crop for _, _, crop in views]),
    )


def save_predictions(
    path: Path, predictions: Predictions, classes: Sequence[str], provenance: Provenance | None = None
) -> None:
    """Write `path`, a safetensors file whose metadata hold video ids, classes and provenance as JSON.

    Raises RespikeError where the disk refuses.
    """
    tensors = {name: getattr(predictions, name).contiguous() for name in _DTYPES}
    facts = {
        "format": _FORMAT,
        "video_ids": list(predictions.video_ids),
        "classes": list(classes),
        "provenance": None if provenance is None else provenance.to_json(),
    }
    # ASCII, since an id may hold bytes that are no text
    text = json.dumps(facts, sort_keys=True)
    metadata = {"respike": text, "sha256": _digest(text, tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata=metadata))


def load_predictions(path: Path) -> tuple[Predictions, tuple[str, ...], Provenance | None]:
    """Read what `save_predictions` wrote: predictions, classes, provenance.

    Raises RespikeError that says what is wrong where the file is missing, of another kind, cut or changed.
    """
    if not path.is_file():
        raise RespikeError(f"there are no predictions {path}", _HINT)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _DTYPES if name in file.keys()}  # noqa: SIM118
        facts = json.loads(metadata["respike"])
        if facts["format"] != _FORMAT:
            raise RespikeError(f"{path} is of format {facts['format']}, this respike reads {_FORMAT}", _HINT)
        if metadata["sha256"] != _digest(metadata["respike"], tensors):
            raise RespikeError(f"{path} was changed or damaged after it was written", _HINT)
        _check(tensors, facts)
        predictions = Predictions(video_ids=tuple(facts["video_ids"]), **tensors)
        kept = facts["provenance"]
        return predictions, tuple(facts["classes"]), None if kept is None else Provenance.from_json(kept)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RespikeError(f"{path} holds no predictions: {error}", _HINT) from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _check(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Raise ValueError unless a score can be computed from the tensors."""
    for name, dtype in _DTYPES.items():
        if name not in tensors:
            raise ValueError(f"it lacks {name}")
        if tensors[name].dtype != dtype or tensors[name].dim() != (2 if name == "probabilities" else 1):
            raise ValueError(f"{name} is {tensors[name].dtype} {list(tensors[name].shape)}")
    num_views, num_classes = tensors["probabilities"].shape
    if num_classes != len(facts["classes"]) or any(len(tensor) != num_views for tensor in tensors.values()):
        raise ValueError("its parts are not of one size")
    _check_range("labels", tensors["labels"], num_classes)
    _check_range("videos", tensors["videos"], len(facts["video_ids"]))
    sums = tensors["probabilities"].sum(dim=1)
    if not (tensors["probabilities"] >= 0).all() or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError("probabilities do not sum to 1")


def _check_range(name: str, values: Tensor, end: int) -> None:
    if not len(values) or int(values.min()) < 0 or int(values.max()) >= end:
        raise ValueError(f"{name} are not within 0 to {end - 1}")


def merge_crops(predictions: Predictions) -> Predictions:
    """The same with one row a clip: the mean of its crops' probabilities, told as crop 0."""
    if int(predictions.crops.max()) == 0:
        return predictions
    places: dict[tuple[int, int], int] = {}
    views = zip(predictions.videos.tolist(), predictions.clips.tolist(), strict=True)
    groups = torch.tensor([places.setdefault(view, len(places)) for view in views])
    probabilities, labels = average_rows(predictions.probabilities, predictions.labels, groups)
    return Predictions(
        probabilities=probabilities,
        labels=labels,
        video_ids=predictions.video_ids,
        videos=torch.tensor([video for video, _ in places]),
        clips=torch.tensor([clip for _, clip in places]),
        crops=torch.zeros(len(places), dtype=torch.int64),
    )


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One class that a network holds possible, and how probable, from 0 to 1."""

    class_name: str
    probability: float


class VideoVote:
    """The mean of the probabilities of a video's clips so far; takes no more memory for more clips."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._sum: Tensor | None = None
        self.num_clips = 0

    def add(self, batch: Batch) -> Tensor:
        """Let the network look at clips; return their probabilities `[B, K]`, on the CPU.

        The network answers in the mode it is in. Raises RespikeError where an answer is not finite.
        """
        moved = batch.to(self._device)
        with torch.no_grad():
            logits = self._model(moved.keys, moved.residuals, moved.color).float().cpu()
        if not bool(logits.isfinite().all()):
            raise RespikeError(
                f"the network's answer to a clip of {batch.video_ids[0]} is not a finite number",
                "the weights are damaged or training diverged: use an earlier checkpoint",
            )
        probabilities: Tensor = logits.softmax(dim=1)
        # in float64, so that an hour of clips adds no rounding
        total = probabilities.double().sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        self.num_clips += len(probabilities)
        return probabilities

    def probabilities(self) -> Tensor:
        """The video's probabilities `[K]`, float32. Raises RespikeError where no clip was added."""
        if self._sum is None:
            raise RespikeError("the video makes no clip", "take a longer one")
        return (self._sum / self.num_clips).float()


def best_guesses(probabilities: Tensor, classes: Sequence[str], most: int) -> tuple[Guess, ...]:
    """Return the `most` most probable classes (all, where there are fewer), the likeliest first; ties by label."""
    order = torch.argsort(probabilities, descending=True, stable=True)[:most].tolist()
    return tuple(Guess(class_name=classes[label], probability=float(probabilities[label])) for label in order)
