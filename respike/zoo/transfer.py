"""Transfer: a network that starts from another's weights, part by part, where they fit."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from respike.errors import MismatchError
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.nn.respike import ReSpike
from respike.zoo.seen import find_seen

_PART_NAMES = {"ann": "ANN branch", "snn": "SNN branch", "fusions": "fusions", "head": "head"}


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Which parts of a network came from another, and which start from chance."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        fresh = f"; from chance: {', '.join(self.fresh)}" if self.fresh else ""
        return f"loaded: {', '.join(self.loaded)}{fresh}"


def transfer_weights(
    source: ReSpike, source_classes: tuple[str, ...], target: ReSpike, classes: tuple[str, ...]
) -> Transfer:
    """Copy into `target` each part of `source` whose tensors have the same names and shapes.

    The head goes along only where both networks tell the same classes in the same order. Raises MismatchError where
    no branch fits.
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


def find_overlap(spec: CheckpointSpec, test_videos: Iterable[str]) -> list[str]:
    """Return those of `test_videos` that the network of `spec` has learned from, sorted.

    Videos are known by their ids, the paths below the data set's root: a video that two data sets hold under unlike
    names is not found.
    """
    return find_seen(spec.train_videos, test_videos)
