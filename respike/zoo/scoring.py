"""Scoring: accuracy of a trained network on clips and videos, and its mean over several networks."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from respike.common.config import to_plain
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.common.progress import SILENCE, Progress
from respike.types import Batch, BatchSource, CountedSource
from respike.zoo.device import autocast, device_of
from respike.zoo.metrics import (
    Accuracy,
    average_rows,
    count_confusions,
    count_correct,
    measure_accuracy,
    measure_calibration,
)
from respike.zoo.nn.modes import eval_mode
from respike.zoo.predictions import Predictions, Provenance, Row, collect, merge_crops
from respike.zoo.train_config import Amp

# by kind (`clip`, `video`, `calibration`) and name
Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """The clips and videos of one class, and the shares of them that are correct (None if there are none)."""

    num_clips: int
    clip_top1: float | None
    num_videos: int
    video_top1: float | None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one network on one set of clips.

    The probabilities of a clip are the mean of its crops' softmax probabilities, those of a video the mean of all its
    views'.

    - `clip`, `video`: accuracies, 0 to 1. `loss`: mean cross-entropy of a clip in nats.
    - `clip_calibration`, `video_calibration`: expected calibration errors, 0 to 1.
    - `per_class`: by label. `confusion`: int64 `[K, K]`, clips of a label (first index) predicted as a class (second).
    - `fingerprint`: of the data. `forced`: whether the network was scored although it does not fit the data.
    - `provenance`: all facts about network and data, if known.
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
        """Return the scores as `respike score --json` prints them, with those of each class if `classes` are named."""
        facts: dict[str, Any] = {
            "clip": to_plain(self.clip),
            "video": to_plain(self.video),
            "num_clips": self.num_clips,
            "num_videos": self.num_videos,
            "fingerprint": self.fingerprint,
            "forced": self.forced,
            "num_views": self.num_views,
            "loss": self.loss,
            "calibration": {"clip": self.clip_calibration, "video": self.video_calibration},
        }
        if self.provenance is not None:
            facts["provenance"] = to_plain(self.provenance)
        if classes is not None:
            rows = zip(classes, self.per_class, strict=True)
            facts["per_class"] = [{"class": name} | to_plain(row) for name, row in rows]
        return facts

    def to_flat(self) -> dict[str, float]:
        """Return the scores as those of a training's validation: `top1`, … of clips, `video_top1`, …, and `loss`."""
        videos = {f"video_{name}": value for name, value in to_plain(self.video).items()}
        return {**to_plain(self.clip), **videos, "loss": self.loss}


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
    """Score `model` on every view of `source`, each once. Rows that `Batch.mask` excludes do not count.

    This is `predict` followed by `score_predictions`. `fingerprint` and `forced` are passed on to the result.
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
    """Run `model` on a whole pass of `source`, in evaluation mode. Rows that `Batch.mask` excludes do not count.

    The model runs on its own device; it moves to `device` if that is given, and stays there. Afterwards each of its
    layers has its former mode. `amp` is the mixed precision, in addition to any that the caller has set. In a
    distributed process group each rank runs on its own part, and all of them return all predictions.

    Raises SettingError if `source` is a loader for training or the device cannot compute in `amp`; MismatchError if
    labels or logits do not fit `num_classes`; RespikeError if there is no clip, if the source returns fewer views than
    it has, or if a logit is not finite.
    """
    if num_classes < 2:
        raise SettingError(f"num_classes is {num_classes}", "scores need at least 2 classes")
    if isinstance(source, CountedSource) and source.is_training:
        raise SettingError(
            "the loader is for training: its clips are cropped and mirrored at random, and some are left out",
            "make one with training=False to score",
        )
    # the source may be in the middle of a pass
    source.set_epoch(0)
    target = device_of(model) if device is None else torch.device(device)
    model = model.to(target)
    probabilities: list[Tensor] = []
    rows: list[Row] = []
    with eval_mode(model), progress.task("score", total=len(source), unit="batches") as task:
        for batch in source:
            with autocast(target, amp):
                batch_probabilities, batch_rows = _predict_batch(model, batch, num_classes, target)
            probabilities.append(batch_probabilities)
            rows += batch_rows
            task.advance(1, views=len(rows))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [(probabilities, rows)] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, (probabilities, rows))
        probabilities = [tensor for part, _ in parts for tensor in part]
        rows = [row for _, part in parts for row in part]
    if isinstance(source, CountedSource) and len(rows) < source.num_views:
        raise RespikeError(
            f"the loader has {source.num_views:,} views, it returned {len(rows):,}",
            "score a whole pass; with the loader of one rank, score in a process group of all ranks",
        )
    return collect(probabilities, rows)


def _predict_batch(model: nn.Module, batch: Batch, num_classes: int, device: torch.device) -> tuple[Tensor, list[Row]]:
    """Return the probabilities of the rows that count, and these rows."""
    counting = [row for row, counts in enumerate(batch.mask.tolist()) if counts]
    clips, labels = batch.clip_indices.tolist(), batch.labels.tolist()
    rows = [Row(video=batch.video_ids[row], clip=clips[row], crop=batch.crop, label=labels[row]) for row in counting]
    moved = batch.to(device, non_blocking=True)
    logits = model(moved.keys, moved.residuals, moved.color).float().cpu()[counting]
    if logits.shape[1] != num_classes:
        raise MismatchError(
            f"the network has {logits.shape[1]} classes, the data has {num_classes}",
            "score on shards of the data set that it was trained on",
        )
    own_labels = [row.label for row in rows]
    if own_labels and not 0 <= min(own_labels) <= max(own_labels) < num_classes:
        raise MismatchError(
            f"labels run from {min(own_labels)} to {max(own_labels)}, not within 0 to {num_classes - 1}",
            "prepare the data again, or give its number of classes",
        )
    for is_finite, row in zip(logits.isfinite().all(dim=1).tolist(), rows, strict=True):
        if not is_finite:
            raise RespikeError(
                f"the network's output for clip {row.clip} of {row.video} is not a finite number",
                "the weights are damaged or the training diverged: use an earlier checkpoint",
            )
    return logits.softmax(dim=1), rows


def score_predictions(
    predictions: Predictions,
    *,
    fingerprint: str = "",
    forced: bool = False,
    provenance: Provenance | None = None,
) -> Scores:
    """Score predictions. If `provenance` is given, `fingerprint` and `forced` are taken from it."""
    if provenance is not None:
        fingerprint, forced = provenance.fingerprint, bool(provenance.overruled)
    clips = merge_crops(predictions)
    videos, video_labels = average_rows(predictions.probabilities, predictions.labels, predictions.videos)
    # a probability may round to 0 in float32
    likelihood = clips.probabilities.gather(1, clips.labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return Scores(
        clip=measure_accuracy(clips.probabilities, clips.labels),
        video=measure_accuracy(videos, video_labels),
        num_clips=len(clips.labels),
        num_videos=len(video_labels),
        num_views=len(predictions.labels),
        loss=float(-likelihood.log().mean()),
        clip_calibration=measure_calibration(clips.probabilities, clips.labels),
        video_calibration=measure_calibration(videos, video_labels),
        per_class=_score_classes(clips, videos, video_labels),
        fingerprint=fingerprint,
        forced=forced,
        provenance=provenance,
        confusion=count_confusions(clips.probabilities, clips.labels),
    )


def _score_classes(clips: Predictions, videos: Tensor, video_labels: Tensor) -> tuple[ClassScore, ...]:
    clip_counts, video_counts = count_correct(clips.probabilities, clips.labels), count_correct(videos, video_labels)
    return tuple(
        ClassScore(
            num_clips=num_clips,
            clip_top1=correct_clips / num_clips if num_clips else None,
            num_videos=num_videos,
            video_top1=correct_videos / num_videos if num_videos else None,
        )
        for (correct_clips, num_clips), (correct_videos, num_videos) in zip(clip_counts, video_counts, strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class ScoreSet:
    """Several scores with their mean and sample standard deviation (n - 1), since splits and seeds are samples."""

    scores: tuple[Scores, ...]
    mean: Figures
    deviation: Figures

    def to_json(self, classes: Sequence[Sequence[str]] | None = None) -> dict[str, Any]:
        """Return the set as `respike score --json` prints it. `classes` are the class names of each score."""
        names: Sequence[Sequence[str] | None] = classes if classes is not None else [None] * len(self.scores)
        runs = [scores.to_json(each) for scores, each in zip(self.scores, names, strict=True)]
        return {"runs": runs, "mean": self.mean, "deviation": self.deviation}


def summarise_scores(scores: Sequence[Scores]) -> ScoreSet:
    """Return mean and deviation of two or more scores.

    Raises MismatchError if they are of different data sets, or if two are of the same checkpoint.
    """
    if reason := find_mean_problem([each.provenance for each in scores if each.provenance is not None]):
        raise MismatchError(reason, "score them one by one")
    columns: list[Figures] = [
        {
            "clip": to_plain(each.clip),
            "video": to_plain(each.video),
            "calibration": {"clip": each.clip_calibration, "video": each.video_calibration},
        }
        for each in scores
    ]

    def combine(measure: Callable[[list[float]], float]) -> Figures:
        return {
            kind: {name: measure([column[kind][name] for column in columns]) for name in names}
            for kind, names in columns[0].items()
        }

    return ScoreSet(scores=tuple(scores), mean=combine(statistics.fmean), deviation=combine(statistics.stdev))


def find_mean_problem(sources: Sequence[Provenance]) -> str:
    """Return why a mean over these scores would mean nothing, or an empty text."""
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
    """Return in words how the scores of a mean differ, besides split and seed."""
    facts: dict[str, list[Any]] = {
        name: [getattr(source, name) for source in sources]
        for name in ("network", "branches", "image_size", "clips_asked", "crops", "eval_crop", "amp", "subset")
    }
    for name in sorted({name for source in sources for name in source.settings} - {"seed"}):
        # shards that are older than a setting do not name it
        facts[name] = [source.settings.get(name, "the default") for source in sources]
    return tuple(
        f"{name.replace('_', ' ')} is {', '.join(map(str, values))}"
        for name, values in facts.items()
        if any(value != values[0] for value in values)
    )
