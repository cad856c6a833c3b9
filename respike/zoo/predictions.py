"""Predictions: what a network said of each view of each clip, in memory and as one safetensors file.

Every score is computed from these alone, so that it can be computed again without the network. Legend: V views, a
square crop of a clip each · K classes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from respike.errors import RespikeError
from respike.files import write_atomically
from respike.zoo.metrics import average_rows
from respike.zoo.provenance import Provenance

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
