"""Scoring: a trained network on clips it has not seen."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.common.progress import SILENCE, Progress
from respike.common.text import counted
from respike.types import Batch, BatchSource, CountedSource
from respike.zoo.device import autocast, device_of
from respike.zoo.metrics import (
    Accuracy,
    average_rows,
    count_confusions,
    count_right,
    measure_accuracy,
    measure_calibration,
)
from respike.zoo.nn.modes import eval_mode
from respike.zoo.predictions import Predictions, Provenance, Row, collect, merge_crops
from respike.zoo.train_config import Amp


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: its clips and videos, and the shares of them that were named right (None where there is none)."""

    num_clips: int
    clip_top1: float | None
    num_videos: int
    video_top1: float | None

    def to_json(self) -> dict[str, Any]:
        """The class's score as plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What scoring gave.

    A clip's probabilities are the mean of its crops' softmax probabilities, a video's the mean over all its views.
    `clip` and `video` hold fractions from 0 to 1; `loss` is the mean cross-entropy of the clips in nats;
    `clip_calibration` and `video_calibration` are expected calibration errors. `fingerprint` names the data, `forced`
    says that a mismatch of checkpoint and data was overruled, `provenance` tells all that is known of both.
    `confusion` is int64 `[K, K]`: clips of the label (first index) taken for the class (second index).
    """

    clip: Accuracy
    video: Accuracy
    num_clips: int
    num_videos: int
    num_views: int
    loss: float
    clip_calibration: float
    video_calibration: float
    per_class: tuple[ClassScore, ...] = field(repr=False)
    fingerprint: str = ""
    forced: bool = False
    provenance: Provenance | None = None
    confusion: NDArray[np.int64] = field(repr=False, compare=False)

    def to_json(self, classes: Sequence[str] | None = None) -> dict[str, Any]:
        """The scores as `respike score --json` prints them; with the `classes` by name, each class's too."""
        told: dict[str, Any] = {
            "clip": self.clip.to_json(),
            "video": self.video.to_json(),
            "num_clips": self.num_clips,
            "num_videos": self.num_videos,
            "fingerprint": self.fingerprint,
            "forced": self.forced,
            "num_views": self.num_views,
            "loss": self.loss,
            "calibration": {"clip": self.clip_calibration, "video": self.video_calibration},
        }
        if self.provenance is not None:
            told["provenance"] = self.provenance.to_json()
        if classes is not None:
            rows = zip(classes, self.per_class, strict=True)
            told["per_class"] = [{"class": name} | row.to_json() for name, row in rows]
        return told

    def to_flat(self) -> dict[str, float]:
        """The scores as a training's validation: `top1` … of clips, `video_top1` … of videos, `loss`."""
        videos = {f"video_{name}": value for name, value in self.video.to_json().items()}
        return self.clip.to_json() | videos | {"loss": self.loss}


def score(
    model: nn.Module,
    source: BatchSource,
    *,
    num_classes: int,
    device: torch.device | str | None = None,
    amp: Amp = "no",
    fingerprint: str = "",
    forced: bool = False,
    progress: Progress = SILENCE,
) -> Scores:
    """Score `model` on every view of `source`, each once; rows that `Batch.mask` rules out do not count.

    It is `predict` and `score_predictions` in one. `fingerprint` and `forced` are noted in the result.
    """
    predictions = predict(model, source, num_classes=num_classes, device=device, amp=amp, progress=progress)
    return score_predictions(predictions, fingerprint=fingerprint, forced=forced)


def predict(
    model: nn.Module,
    source: BatchSource,
    *,
    num_classes: int,
    device: torch.device | str | None = None,
    amp: Amp = "no",
    progress: Progress = SILENCE,
) -> Predictions:
    """Ask `model` for every view of `source`, a row of a batch each, from the first; masked rows do not count.

    The model answers where it is, or, if a `device` is given, is moved there and stays. It answers in evaluation mode;
    each of its layers then has the mode that it had before. `amp` is its mixed precision, beside what the caller may
    have set. In a distributed process group each rank asks for its part and all return the whole.

    Raises SettingError where `source` is a loader to train with or the device cannot compute in `amp`, MismatchError
    where labels or logits do not fit `num_classes`, RespikeError where there is no clip, where fewer views come than a
    source that knows them (`CountedSource`) has, or where the network's answer is not finite.
    """
    if num_classes < 2:
        raise SettingError(f"the data has {num_classes} class(es)", "scores need at least 2")
    if isinstance(source, CountedSource) and source.is_training:
        raise SettingError(
            "the loader is one to train with: its clips are cut and mirrored at random, and some are left out",
            "make one with training=False to score",
        )
    # whatever was seen of the source before
    source.set_epoch(0)
    place = device_of(model) if device is None else torch.device(device)
    model = model.to(place)
    probabilities: list[Tensor] = []
    rows: list[Row] = []
    with eval_mode(model), progress.task("score", total=len(source), unit="batches") as task:
        for batch in source:
            with autocast(place, amp):
                told, seen = _ask(model, batch, num_classes, place)
            probabilities.append(told)
            rows += seen
            task.advance(1, views=len(rows))
    probabilities, rows = _gather(probabilities, rows)
    if isinstance(source, CountedSource) and len(rows) < source.num_views:
        raise RespikeError(
            f"{counted(len(rows), 'view')} came of the {source.num_views:,} that the loader has",
            "give all of a pass; where it is one rank's loader, score in a process group of all ranks",
        )
    return collect(probabilities, rows)


def score_predictions(
    predictions: Predictions,
    *,
    fingerprint: str = "",
    forced: bool = False,
    provenance: Provenance | None = None,
) -> Scores:
    """Score what a network said. With `provenance` it tells fingerprint and whether the score was forced."""
    if provenance is not None:
        fingerprint, forced = provenance.fingerprint, bool(provenance.overruled)
    clips = merge_crops(predictions)
    of_videos, video_labels = average_rows(predictions.probabilities, predictions.labels, predictions.videos)
    # the likelihood of a class may round to 0 in float32
    likelihood = clips.probabilities.gather(1, clips.labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return Scores(
        clip=measure_accuracy(clips.probabilities, clips.labels),
        video=measure_accuracy(of_videos, video_labels),
        num_clips=len(clips.labels),
        num_videos=len(video_labels),
        num_views=len(predictions.labels),
        loss=float(-likelihood.log().mean()),
        clip_calibration=measure_calibration(clips.probabilities, clips.labels),
        video_calibration=measure_calibration(of_videos, video_labels),
        per_class=_score_classes(clips, of_videos, video_labels),
        fingerprint=fingerprint,
        forced=forced,
        provenance=provenance,
        confusion=count_confusions(clips.probabilities, clips.labels),
    )


def _score_classes(clips: Predictions, of_videos: Tensor, video_labels: Tensor) -> tuple[ClassScore, ...]:
    pairs = zip(count_right(clips.probabilities, clips.labels), count_right(of_videos, video_labels), strict=True)
    return tuple(
        ClassScore(
            num_clips=num_clips,
            clip_top1=right_clips / num_clips if num_clips else None,
            num_videos=num_videos,
            video_top1=right_videos / num_videos if num_videos else None,
        )
        for (right_clips, num_clips), (right_videos, num_videos) in pairs
    )


def _ask(model: nn.Module, batch: Batch, num_classes: int, device: torch.device) -> tuple[Tensor, list[Row]]:
    """Probabilities of the rows that count, and which they are."""
    counting = [row for row, counts in enumerate(batch.mask.tolist()) if counts]
    clips, labels = batch.clip_indices.tolist(), batch.labels.tolist()
    rows = [Row(video=batch.video_ids[row], clip=clips[row], crop=batch.crop, label=labels[row]) for row in counting]
    moved = batch.to(device, non_blocking=True)
    logits = model(moved.keys, moved.residuals, moved.color).float().cpu()[counting]
    _check(logits, rows, num_classes)
    return logits.softmax(dim=1), rows


def _check(logits: Tensor, rows: list[Row], num_classes: int) -> None:
    if logits.shape[1] != num_classes:
        raise MismatchError(
            f"the network tells {counted(logits.shape[1], 'class')}, the data has {num_classes}",
            "score on shards of the data set that it was trained on",
        )
    if (labels := [row.label for row in rows]) and not 0 <= min(labels) <= max(labels) < num_classes:
        raise MismatchError(
            f"labels run from {min(labels)} to {max(labels)}, not within 0 to {num_classes - 1}",
            "prepare the data again, or give the number of classes that it has",
        )
    for finite, row in zip(logits.isfinite().all(dim=1).tolist(), rows, strict=True):
        if not finite:
            raise RespikeError(
                f"the network's answer to clip {row.clip} of {row.video} is not a finite number",
                "the weights are damaged or training diverged: use an earlier checkpoint",
            )


def _gather(probabilities: list[Tensor], rows: list[Row]) -> tuple[list[Tensor], list[Row]]:
    """Bring the parts of all ranks together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return probabilities, rows
    parts = [(probabilities, rows)] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, (probabilities, rows))
    return [tensor for told, _ in parts for tensor in told], [row for _, seen in parts for row in seen]


Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class ScoreSet:
    """Scores with their mean and deviation, by kind (`clip`, `video`, `calibration`) and name.

    The deviation is the sample's, with n - 1: splits or seeds are a sample of all that could have been drawn.
    """

    scores: tuple[Scores, ...]
    mean: Figures
    deviation: Figures

    def to_json(self, classes: Sequence[Sequence[str]] | None = None) -> dict[str, Any]:
        """The set as `respike score --json` prints it; `classes` are the names of each score's."""
        names: Sequence[Sequence[str] | None] = classes if classes is not None else [None] * len(self.scores)
        runs = [scores.to_json(each) for scores, each in zip(self.scores, names, strict=True)]
        return {"runs": runs, "mean": self.mean, "deviation": self.deviation}


def summarise_scores(scores: Sequence[Scores]) -> ScoreSet:
    """Take mean and deviation of two or more scores.

    Raises MismatchError where they are of different data sets, or one checkpoint's twice.
    """
    if reason := find_discord([each.provenance for each in scores if each.provenance is not None]):
        raise MismatchError(reason, "score them one by one")
    columns = [_figures(each) for each in scores]
    kinds = {kind: tuple(names) for kind, names in columns[0].items()}

    def across(measure: Any) -> Figures:
        return {
            kind: {name: measure([figures[kind][name] for figures in columns]) for name in names}
            for kind, names in kinds.items()
        }

    return ScoreSet(scores=tuple(scores), mean=across(statistics.fmean), deviation=across(statistics.stdev))


def find_discord(sources: Sequence[Provenance]) -> str:
    """Say why a mean over these would mean nothing; empty where it means something."""
    datasets = sorted({source.dataset for source in sources})
    if len(datasets) > 1:
        return f"the checkpoints are scored on different data sets: {', '.join(datasets)}"
    seen: dict[tuple[str, str, str], str] = {}
    for source in sources:
        key = (source.weights_sha256, source.fingerprint, source.subset)
        if key in seen:
            return f"{source.checkpoint} and {seen[key]} are the same weights on the same data"
        seen[key] = source.checkpoint
    return ""


def find_differences(sources: Sequence[Provenance]) -> tuple[str, ...]:
    """Name what differs beside split and seed, so that a mean mixes it."""
    facts: dict[str, list[Any]] = {
        name: [getattr(source, name) for source in sources]
        for name in ("network", "branches", "image_size", "clips_asked", "crops", "eval_crop", "amp", "subset")
    }
    for name in sorted({name for source in sources for name in source.settings} - {"seed"}):
        # a setting younger than some shards is told only where it is not the default
        facts[name] = [source.settings.get(name, "the default") for source in sources]
    return tuple(
        f"{name.replace('_', ' ')} is {', '.join(map(str, values))}"
        for name, values in facts.items()
        if any(value != values[0] for value in values)
    )


def _figures(scores: Scores) -> dict[str, dict[str, float]]:
    return {
        "clip": scores.clip.to_json(),
        "video": scores.video.to_json(),
        "calibration": {"clip": scores.clip_calibration, "video": scores.video_calibration},
    }
