"""Scoring: a trained network against shards it has not seen, for clips and for videos."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from respike.errors import MismatchError, RespikeError, SettingError
from respike.progress import SILENCE, Progress
from respike.sample import BatchSource, DataSpec
from respike.zoo.checkpoint import CheckpointSpec
from respike.zoo.metrics import Accuracy, average_by_video, count_confusions, measure_accuracy
from respike.zoo.seen import find_seen

# settings of `respike prepare` that change what the network is fed, not just how much of it or how sharp
_FITTING_SETTINGS = ("stride", "clip_length", "frame_stride", "threshold", "color")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What scoring gave. A video's probabilities are the mean of its clips' softmax probabilities.

    `clip` and `video` hold fractions from 0 to 1; `loss` is the mean cross-entropy of the clips in nats.
    `fingerprint` names the data, `forced` says that a mismatch of checkpoint and data was overruled. `confusion` is
    int64 `[K, K]`: clips of the label (first index) taken for the class (second index).
    """

    clip: Accuracy
    video: Accuracy
    num_clips: int
    num_videos: int
    loss: float
    fingerprint: str = ""
    forced: bool = False
    confusion: NDArray[np.int64] = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The scores as `respike score --json` prints them."""
        return {
            "clip": self.clip.to_json(),
            "video": self.video.to_json(),
            "num_clips": self.num_clips,
            "num_videos": self.num_videos,
            "fingerprint": self.fingerprint,
            "forced": self.forced,
        }

    def to_flat(self) -> dict[str, float]:
        """The scores as a training's validation: `top1` … of clips, `video_top1` … of videos, `loss`."""
        videos = {f"video_{name}": value for name, value in self.video.to_json().items()}
        return self.clip.to_json() | videos | {"loss": self.loss}


@dataclass
class _Predictions:
    """Probabilities `[K]` and labels of the clips told so far, on the CPU."""

    probabilities: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    clips: list[tuple[str, int]] = field(default_factory=list)


def score(
    model: nn.Module,
    source: BatchSource,
    *,
    num_classes: int,
    device: torch.device | str = "cpu",
    fingerprint: str = "",
    forced: bool = False,
    progress: Progress = SILENCE,
) -> Scores:
    """Score `model` on every clip of `source`, each once; rows that `Batch.mask` rules out do not count.

    The model is moved to `device` and answers in evaluation mode; its mode before is restored. In a distributed
    process group each rank scores its part and all return the scores of the whole. `fingerprint` and `forced` are
    noted in the result. Raises MismatchError where labels or logits do not fit `num_classes`, RespikeError where
    there is no clip or the network's answer is not finite.
    """
    if num_classes < 2:
        raise SettingError(f"the data has {num_classes} class(es)", "scores need at least 2")
    model = model.to(device)
    was_training = model.training
    model.eval()
    try:
        predictions = _predict(model, source, num_classes, device, progress)
    finally:
        model.train(was_training)
    probabilities, labels, video_ids = _gather(predictions)
    video_probabilities, video_labels = average_by_video(probabilities, labels, video_ids)
    # the likelihood of a class may round to 0 in float32
    likelihood = probabilities.gather(1, labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return Scores(
        clip=measure_accuracy(probabilities, labels),
        video=measure_accuracy(video_probabilities, video_labels),
        num_clips=len(labels),
        num_videos=len(video_labels),
        loss=float(-likelihood.log().mean()),
        fingerprint=fingerprint,
        forced=forced,
        confusion=count_confusions(probabilities, labels),
    )


def _predict(
    model: nn.Module, source: BatchSource, num_classes: int, device: torch.device | str, progress: Progress
) -> _Predictions:
    predictions = _Predictions()
    with torch.no_grad(), progress.task("score", total=len(source), unit="batches") as task:
        for batch in source:
            rows = [row for row, counts in enumerate(batch.mask.tolist()) if counts]
            clip_indices = batch.clip_indices.tolist()
            moved = batch.to(device, non_blocking=True)
            logits = model(moved.keys, moved.residuals, moved.color).float().cpu()[rows]
            labels = batch.labels[rows].cpu()
            clips = [(batch.video_ids[row], int(clip_indices[row])) for row in rows]
            _check(logits, labels, clips, num_classes)
            predictions.probabilities.append(logits.softmax(dim=1))
            predictions.labels.append(labels)
            predictions.clips.extend(clips)
            task.advance(1, clips=len(predictions.clips))
    return predictions


def _check(logits: Tensor, labels: Tensor, clips: list[tuple[str, int]], num_classes: int) -> None:
    if logits.shape[1] != num_classes:
        raise MismatchError(
            f"the network tells {logits.shape[1]} classes, the data has {num_classes}",
            "score on shards of the data set that it was trained on",
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise MismatchError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, not within 0 to {num_classes - 1}",
            "prepare the data again, or give the number of classes that it has",
        )
    for finite, (video_id, clip_index) in zip(logits.isfinite().all(dim=1).tolist(), clips, strict=True):
        if not finite:
            raise RespikeError(
                f"the network's answer to clip {clip_index} of {video_id} is not a finite number",
                "the weights are damaged or training diverged: use an earlier checkpoint",
            )


def _gather(mine: _Predictions) -> tuple[Tensor, Tensor, list[str]]:
    """Bring the parts of all ranks together, in one order everywhere, each clip once."""
    parts = [mine]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [mine] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, mine)
    places = {clip: place for place, clip in reversed(list(enumerate(clip for part in parts for clip in part.clips)))}
    if not places:
        raise RespikeError("there is no clip to score", "choose a subset that holds clips")
    clips = sorted(places)
    order = torch.tensor([places[clip] for clip in clips])
    probabilities = torch.cat([tensor for part in parts for tensor in part.probabilities])[order]
    labels = torch.cat([tensor for part in parts for tensor in part.labels])[order]
    return probabilities, labels, [video_id for video_id, _ in clips]


def find_mismatches(spec: CheckpointSpec, data: DataSpec, test_videos: Iterable[str]) -> tuple[str, ...]:
    """Say why a checkpoint's score on `test_videos` of `data` would mislead, one reason an entry; none where it fits.

    What must agree: data set, split, classes, and of the settings of `respike prepare` stride, clip length, frame
    stride, threshold and colour. No test video may be one that the network was trained on.
    """
    trained = spec.data
    facts: list[tuple[str, object, object]] = [
        ("data set", trained.dataset, data.dataset),
        ("split", trained.split, data.split),
    ]
    facts += [(name, trained.settings.get(name), data.settings.get(name)) for name in _FITTING_SETTINGS]
    reasons = [
        f"{name.replace('_', ' ')} is {there!r} in the checkpoint and {here!r} in the data"
        for name, there, here in facts
        if there != here
    ]
    reasons += _compare_classes(trained.classes, data.classes)
    num_tested = len(videos := set(test_videos))
    if seen := find_seen(spec.train_videos, videos):
        reasons.append(f"{len(seen)} of the {num_tested} test videos were trained on, the first {seen[0]}")
    return tuple(reasons)


def _compare_classes(trained: tuple[str, ...], given: tuple[str, ...]) -> list[str]:
    if trained == given:
        return []
    if len(trained) != len(given):
        return [f"the checkpoint has {len(trained)} classes and the data {len(given)}"]
    label = next(label for label, (there, here) in enumerate(zip(trained, given, strict=True)) if there != here)
    return [f"class {label} is {trained[label]!r} in the checkpoint and {given[label]!r} in the data"]


def check_compatible(spec: CheckpointSpec, data: DataSpec, test_videos: Iterable[str]) -> None:
    """Raise MismatchError that gives every reason `find_mismatches` finds."""
    if reasons := find_mismatches(spec, data, test_videos):
        raise MismatchError(
            f"this checkpoint must not be scored on this data: {'; '.join(reasons)}",
            "score on the data that it was trained for, or go on with --force",
        )
