"""Score set: scores of several checkpoints, one a split or one a seed → mean and deviation, as papers report them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from respike.errors import MismatchError
from respike.zoo.provenance import Provenance
from respike.zoo.scoring import Scores

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
