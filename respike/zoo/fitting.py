"""Fitting: whether a checkpoint and data belong together, and in what they do not."""

from collections.abc import Iterable

from respike.errors import MismatchError
from respike.sample import DataSpec
from respike.wording import agree, counted
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.seen import find_seen

# settings of `respike prepare` that change what the network is fed, not just how much of it or how sharp
_FITTING_SETTINGS = ("stride", "clip_length", "frame_stride", "sampling", "threshold", "color")


def find_mismatches(spec: CheckpointSpec, data: DataSpec, test_videos: Iterable[str]) -> tuple[str, ...]:
    """Say why a checkpoint's score on `test_videos` of `data` would mislead, one reason an entry; none where it fits.

    What must agree: data set, split, classes, and of the settings of `respike prepare` stride, clip length, frame
    stride, sampling, threshold and colour. No test video may be one that the network was trained on.
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
        was = agree(len(seen), "was", "were")
        reasons.append(f"{len(seen)} of the {counted(num_tested, 'test video')} {was} trained on, the first {seen[0]}")
    return tuple(reasons)


def _compare_classes(trained: tuple[str, ...], given: tuple[str, ...]) -> list[str]:
    if trained == given:
        return []
    if len(trained) != len(given):
        return [f"the checkpoint has {counted(len(trained), 'class')} and the data {len(given)}"]
    label = next(label for label, (there, here) in enumerate(zip(trained, given, strict=True)) if there != here)
    return [f"class {label} is {trained[label]!r} in the checkpoint and {given[label]!r} in the data"]


def check_compatible(spec: CheckpointSpec, data: DataSpec, test_videos: Iterable[str]) -> None:
    """Raise MismatchError that gives every reason `find_mismatches` finds."""
    if reasons := find_mismatches(spec, data, test_videos):
        raise MismatchError(
            f"this checkpoint does not fit this data: {'; '.join(reasons)}",
            "name the data that it was trained for, or other data that fits, with --data; --force goes on all the same",
        )
