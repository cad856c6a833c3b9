"""Ablation grid: its points and cells, and the mean results of a point over its seeds."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from respike.common.errors import SettingError
from respike.zoo.models import NO_FUSION, OWN_FUSION, OWN_VARIANT, FusionVariant, parse_fusion
from respike.zoo.nn.config import BRANCHES, Branches


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """One combination of what a grid varies: two settings of the shards and two of the network."""

    stride: int
    threshold: int
    branches: Branches = "hybrid"
    fusion: FusionVariant = OWN_VARIANT

    @property
    def fusion_name(self) -> str:
        """The fusion in the form that `parse_fusion` reads; `none` for networks that do not fuse two branches."""
        return self.fusion.name if self.branches == "hybrid" else NO_FUSION

    @property
    def name(self) -> str:
        """A name for folders."""
        kind = "" if self.fusion.kind is None else f"-{self.fusion.kind}"
        pools = "" if self.fusion.pools is None else f"-fusion{'.'.join(map(str, self.fusion.pools))}"
        return f"stride{self.stride}-theta{self.threshold}-{self.branches}{kind}{pools}"

    def to_json(self) -> dict[str, Any]:
        """Return the point as plain JSON values."""
        named = {"stride": self.stride, "threshold": self.threshold, "branches": self.branches}
        return named | {"fusion": self.fusion_name}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of an ablation: a grid point and a seed."""

    point: GridPoint
    seed: int

    @property
    def name(self) -> str:
        """A name for folders."""
        return f"{self.point.name}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All combinations of the values on its axes, each trained with `num_seeds` seeds.

    `fusions` are texts that `parse_fusion` reads. They are varied for hybrid networks only; `none` gives the same
    network as the branches `concat`. Raises SettingError if an axis is empty or holds a value that is not allowed.
    """

    strides: Sequence[int] = (4,)
    thresholds: Sequence[int] = (8,)
    branches: Sequence[str] = ("hybrid",)
    fusions: Sequence[str] = (OWN_FUSION,)
    num_seeds: int = 1

    def __post_init__(self) -> None:
        for axis in ("strides", "thresholds", "branches", "fusions"):
            if not getattr(self, axis):
                raise SettingError(f"the grid has no {axis}", "give one or more", setting=axis)
        if self.num_seeds < 1:
            raise SettingError(f"num_seeds is {self.num_seeds}", "give a whole number from 1", setting="num_seeds")
        for branches in self.branches:
            if branches not in BRANCHES:
                raise SettingError(
                    f"branches is {branches!r}", f"choose from {', '.join(BRANCHES)}", setting="branches"
                )
        for fusion in self.fusions:
            parse_fusion(fusion)

    def points(self) -> list[GridPoint]:
        """Return every point once, in the order of the axes."""
        found: dict[GridPoint, None] = {}
        axes = itertools.product(self.strides, self.thresholds, self.branches, self.fusions)
        for stride, threshold, name, fusion in axes:
            branches: Branches = name  # type: ignore[assignment]  # checked on construction
            variant = parse_fusion(fusion)
            if branches == "hybrid" and variant.is_none:
                branches = "concat"
            chosen = variant if branches == "hybrid" else OWN_VARIANT
            found[GridPoint(stride=stride, threshold=threshold, branches=branches, fusion=chosen)] = None
        return list(found)

    def cells(self) -> list[Cell]:
        """Return every cell: all points with the first seed, then all points with the second, and so on."""
        points = self.points()
        return [Cell(point=point, seed=seed) for seed in range(self.num_seeds) for point in points]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The results of a grid point over its seeds.

    `values` holds the scores of each seed by metric (`video_top1`, `clip_top1`, `video_mean_class_accuracy`; shares
    from 0 to 1), `means` their means, `deviations` their sample deviations (n - 1), None for a single seed.
    `energy_joules` is the mean energy of a clip with a dense stem, `sparse_energy_joules` that with the stem counted by
    the density of its events.
    """

    point: GridPoint
    num_seeds: int
    values: Mapping[str, Sequence[float]]
    means: Mapping[str, float]
    deviations: Mapping[str, float | None]
    energy_joules: float
    sparse_energy_joules: float
    event_density: float
    num_parameters: int


# metric → place in the scores of a result
_METRICS = {
    "video_top1": ("video", "top1"),
    "clip_top1": ("clip", "top1"),
    "video_mean_class_accuracy": ("video", "mean_class_accuracy"),
}


def summarize_cells(results: Sequence[tuple[Cell, Mapping[str, Any]]]) -> list[Summary]:
    """Return a summary for each grid point, in order of first appearance.

    `results` pairs cells with what `respike ablate` stores of them.
    """
    rows_by_point: dict[GridPoint, list[Mapping[str, Any]]] = {}
    for cell, result in results:
        rows_by_point.setdefault(cell.point, []).append(result)
    return [_summarize(point, rows) for point, rows in rows_by_point.items()]


def _summarize(point: GridPoint, rows: Sequence[Mapping[str, Any]]) -> Summary:
    values = {name: [row["scores"][kind][score] for row in rows] for name, (kind, score) in _METRICS.items()}
    return Summary(
        point=point,
        num_seeds=len(rows),
        values=values,
        means={name: statistics.fmean(each) for name, each in values.items()},
        deviations={name: statistics.stdev(each) if len(rows) > 1 else None for name, each in values.items()},
        # firing rates differ a little from seed to seed
        energy_joules=statistics.fmean(row["energy_joules"] for row in rows),
        sparse_energy_joules=statistics.fmean(row["sparse_energy_joules"] for row in rows),
        event_density=rows[0]["event_density"],
        num_parameters=rows[0]["num_parameters"],
    )
