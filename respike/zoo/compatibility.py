"""Compatibility: whether a checkpoint fits data, which test videos it has learned from, which weights fit a network."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from respike.common.errors import MismatchError
from respike.common.text import counted
from respike.types import DataSpec
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.nn.respike import ReSpike

# 48 bits: among 250,000 training and 20,000 test videos two different ids collide once in 50,000 data sets
_NUM_HASH_DIGITS = 12
# settings of `respike prepare` that change what the input means; others change only its amount or sharpness
_COMPARED_SETTINGS = ("stride", "clip_length", "frame_stride", "sampling", "threshold", "color")
_PART_NAMES = {"ann": "ANN branch", "snn": "SNN branch", "fusions": "fusions", "head": "head"}


def hash_video(video_id: str) -> str:
    """Return 12 hex digits that stand for a video's id, short enough to keep one for every video of Kinetics."""
    return hashlib.sha256(video_id.encode("utf-8", "surrogateescape")).hexdigest()[:_NUM_HASH_DIGITS]


def find_seen(train_hashes: Iterable[str], video_ids: Iterable[str]) -> list[str]:
    """Return those of `video_ids` whose hashes are among `train_hashes`, sorted, each once."""
    seen = frozenset(train_hashes)
    return sorted(video_id for video_id in set(video_ids) if hash_video(video_id) in seen)


def find_overlap(spec: CheckpointSpec, test_videos: Iterable[str]) -> list[str]:
    """Return those of `test_videos` that the network of `spec` was trained on, sorted.

    A video's id is its path below the root of its data set. A video with different paths in two data sets is not found.
    """
    return find_seen(spec.train_videos, test_videos)


def find_mismatches(spec: CheckpointSpec, data: DataSpec, test_videos: Iterable[str]) -> tuple[str, ...]:
    """Return the reasons why a checkpoint's score on `test_videos` of `data` would mislead; empty where it fits.

    Data set, split, classes and these settings of `respike prepare` must agree: stride, clip length, frame stride,
    sampling, threshold and colour. No test video may be one that the network was trained on.
    """
    trained = spec.data
    facts: list[tuple[str, object, object]] = [
        ("data set", trained.dataset, data.dataset),
        ("split", trained.split, data.split),
    ]
    facts += [(name, trained.settings.get(name), data.settings.get(name)) for name in _COMPARED_SETTINGS]
    reasons = [
        f"{name.replace('_', ' ')} is {there!r} in the checkpoint and {here!r} in the data"
        for name, there, here in facts
        if there != here
    ]
    reasons += _compare_classes(trained.classes, data.classes)
    videos = set(test_videos)
    if seen := find_overlap(spec, videos):
        reasons.append(f"test videos that were trained on: {len(seen):,} of {len(videos):,}, the first {seen[0]}")
    return tuple(reasons)


def _compare_classes(trained: tuple[str, ...], given: tuple[str, ...]) -> list[str]:
    if len(trained) != len(given):
        return [f"the checkpoint has {counted(len(trained), 'class')} and the data {len(given)}"]
    pairs = enumerate(zip(trained, given, strict=True))
    different = (
        f"class {label} is {there!r} in the checkpoint and {here!r} in the data"
        for label, (there, here) in pairs
        if there != here
    )
    return [first] if (first := next(different, "")) else []


def check_compatible(spec: CheckpointSpec, data: DataSpec, test_videos: Iterable[str]) -> None:
    """Raise MismatchError that gives every reason that `find_mismatches` finds."""
    if reasons := find_mismatches(spec, data, test_videos):
        raise MismatchError(
            f"this checkpoint does not fit this data: {'; '.join(reasons)}",
            "give the data that it was trained for, or other data that fits, with --data; --force goes on all the same",
        )


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The parts of a network that were copied from another, and those that keep their random weights."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        fresh = f"; from random weights: {', '.join(self.fresh)}" if self.fresh else ""
        return f"loaded: {', '.join(self.loaded)}{fresh}"


def transfer_weights(
    source: ReSpike, source_classes: tuple[str, ...], target: ReSpike, classes: tuple[str, ...]
) -> Transfer:
    """Copy into `target` each part of `source` whose tensors have the same names and shapes.

    The head is copied only where both networks have the same classes in the same order. Raises MismatchError where no
    branch fits.
    """
    theirs, ours = source.state_dict(), target.state_dict()
    loaded, fresh = [], []
    for part, name in _PART_NAMES.items():
        tensors = {key: value for key, value in ours.items() if key.partition(".")[0] == part}
        if not tensors:
            continue
        fits = all(key in theirs and theirs[key].shape == value.shape for key, value in tensors.items())
        if not fits or (part == "head" and source_classes != classes):
            fresh.append(name)
            continue
        loaded.append(name)
        with torch.no_grad():
            for key, value in tensors.items():
                value.copy_(theirs[key])
    if not {"ANN branch", "SNN branch"} & set(loaded):
        raise MismatchError(
            f"no branch of {source.config.name} fits {target.config.name}", "start from a checkpoint of that network"
        )
    return Transfer(loaded=tuple(loaded), fresh=tuple(fresh))
