"""Ablation grid: settings to cells, and results of cells to means over seeds."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from respike.common.errors import SettingError
from respike.zoo.models import NO_FUSION, OWN_FUSION, OWN_VARIANT, FusionVariant, parse_fusion
from respike.zoo.nn.config import BRANCHES, Branches


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a cell varies beside its seed: two settings of `respike prepare` and two of the network."""

    stride: int
    threshold: int
    branches: Branches = "hybrid"
    fusion: FusionVariant = OWN_VARIANT

    @property
    def fusion_name(self) -> str:
        """The fusion as `parse_fusion` reads it; none where there are not two branches that could fuse."""
        return self.fusion.name if self.branches == "hybrid" else NO_FUSION

    @property
    def name(self) -> str:
        """A name for folders."""
        kind = "" if self.fusion.kind is None else f"-{self.fusion.kind}"
        pools = "" if self.fusion.pools is None else f"-fusion{'.'.join(map(str, self.fusion.pools))}"
        return f"stride{self.stride}-theta{self.threshold}-{self.branches}{kind}{pools}"

    def to_json(self) -> dict[str, Any]:
        """The setting as plain JSON values."""
        named = {"stride": self.stride, "threshold": self.threshold, "branches": self.branches}
        return named | {"fusion": self.fusion_name}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training: a setting and a seed."""

    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """A name for folders."""
        return f"{self.setting.name}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of what it lists is a cell; `fusions` are what `parse_fusion` reads.

    Fusion is varied where there are two branches to fuse; `none` is the same as the branches `concat`. Raises
    SettingError on an empty axis and on a fusion or branches that there are not.
    """

    strides: Sequence[int] = (4,)
    thresholds: Sequence[int] = (8,)
    branches: Sequence[str] = ("hybrid",)
    fusions: Sequence[str] = (OWN_FUSION,)
    num_seeds: int = 1

    def __post_init__(self) -> None:
        for name in ("strides", "thresholds", "branches", "fusions"):
            if not getattr(self, name):
                raise SettingError(f"the grid has no {name}", "give one or more")
        if self.num_seeds < 1:
            raise SettingError(f"the grid has {self.num_seeds} seeds", "give one or more")
        for kind in self.branches:
            if kind not in BRANCHES:
                raise SettingError(f"branches {kind!r}", f"choose from {', '.join(BRANCHES)}")
        for fusion in self.fusions:
            parse_fusion(fusion)

    def settings(self) -> list[Setting]:
        """Every setting once, in the order of the axes."""
        found: dict[Setting, None] = {}
        axes = itertools.product(self.strides, self.thresholds, self.branches, self.fusions)
        for stride, threshold, branches, fusion in axes:
            kind: Branches = branches  # type: ignore[assignment]  # checked when made
            variant = parse_fusion(fusion)
            if kind == "hybrid" and variant.is_none:
                kind = "concat"
            chosen = variant if kind == "hybrid" else OWN_VARIANT
            found[Setting(stride=stride, threshold=threshold, branches=kind, fusion=chosen)] = None
        return list(found)

    def cells(self) -> list[Cell]:
        """Every cell, all settings with the first seed before any with the second."""
        settings = self.settings()
        return [Cell(setting=setting, seed=seed) for seed in range(self.num_seeds) for setting in settings]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A setting's results over its seeds: mean and, where there are two or more, the sample's deviation (n - 1).

    `values` are those of each seed, `figures` their means; these and `deviations` are shares (`video_top1`,
    `clip_top1`, `video_mean_class_accuracy`). `energy_joules` is a clip's, the stem dense, `sparse_energy_joules` with
    the stem by the density of its events.
    """

    setting: Setting
    num_seeds: int
    values: Mapping[str, Sequence[float]]
    figures: Mapping[str, float]
    deviations: Mapping[str, float | None]
    energy_joules: float
    sparse_energy_joules: float
    event_density: float
    num_parameters: int


_FIGURES = {
    "video_top1": ("video", "top1"),
    "clip_top1": ("clip", "top1"),
    "video_mean_class_accuracy": ("video", "mean_class_accuracy"),
}


def summarise_cells(results: Sequence[tuple[Cell, Mapping[str, Any]]]) -> list[Summary]:
    """A summary a setting, settings as they first occur; a result is what `respike ablate` keeps of a cell."""
    of_setting: dict[Setting, list[Mapping[str, Any]]] = {}
    for cell, result in results:
        of_setting.setdefault(cell.setting, []).append(result)
    return [_summarise(setting, rows) for setting, rows in of_setting.items()]


def _summarise(setting: Setting, rows: Sequence[Mapping[str, Any]]) -> Summary:
    columns = {name: [row["scores"][kind][figure] for row in rows] for name, (kind, figure) in _FIGURES.items()}
    return Summary(
        setting=setting,
        num_seeds=len(rows),
        values=columns,
        figures={name: statistics.fmean(values) for name, values in columns.items()},
        deviations={name: statistics.stdev(values) if len(rows) > 1 else None for name, values in columns.items()},
        # rates differ a little from seed to seed
        energy_joules=statistics.fmean(row["energy_joules"] for row in rows),
        sparse_energy_joules=statistics.fmean(row["sparse_energy_joules"] for row in rows),
        event_density=rows[0]["event_density"],
        num_parameters=rows[0]["num_parameters"],
    )
