"""Ablation: a grid of settings → cells to train, and the results of cells → a row a setting, over its seeds."""

import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from respike.errors import SettingError
from respike.zoo.model_options import ModelOptions
from respike.zoo.models import OPEN_MODEL, model_config
from respike.zoo.nn.backbone import BackboneWeights
from respike.zoo.nn.config import BRANCHES, Branches, ModelConfig
from respike.zoo.nn.respike import ReSpike

OWN_FUSION = "default"
NO_FUSION = "none"
Pools = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a cell varies beside its seed: two settings of `respike prepare` and two of the network.

    `pools` are the factors by which maps are pooled before fusion, one a scale and 0 for no fusion there; None is the
    network's own choice.
    """

    stride: int
    threshold: int
    branches: Branches = "hybrid"
    pools: Pools | None = None

    @property
    def fusion(self) -> str:
        """The fusion in a word: the network's own, the pools, or none."""
        if self.branches != "hybrid":
            return NO_FUSION
        return OWN_FUSION if self.pools is None else ",".join(map(str, self.pools))

    @property
    def name(self) -> str:
        """A name for folders."""
        pools = "" if self.pools is None else f"-fusion{'.'.join(map(str, self.pools))}"
        return f"stride{self.stride}-theta{self.threshold}-{self.branches}{pools}"

    def to_json(self) -> dict[str, Any]:
        """The setting as plain JSON values."""
        named = {"stride": self.stride, "threshold": self.threshold, "branches": self.branches}
        return named | {"fusion": self.fusion}


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
    """Every combination of what it lists is a cell; `fusions` are `default`, `none` or pools such as `4,2,1,1`.

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
            pools = parse_fusion(fusion)
            if kind == "hybrid" and pools is not None and not any(pools):
                kind = "concat"
            chosen = pools if kind == "hybrid" else None
            found[Setting(stride=stride, threshold=threshold, branches=kind, pools=chosen)] = None
        return list(found)

    def cells(self) -> list[Cell]:
        """Every cell, all settings with the first seed before any with the second."""
        settings = self.settings()
        return [Cell(setting=setting, seed=seed) for seed in range(self.num_seeds) for setting in settings]


def parse_fusion(text: str) -> Pools | None:
    """Read `default` (None), `none` (no pool) or one pool a scale, such as `4,2,1,1`. Raises SettingError on others."""
    if text == OWN_FUSION:
        return None
    if text == NO_FUSION:
        return (0, 0, 0, 0)
    parts = text.split(",")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        raise SettingError(f"fusion is {text!r}", "give default, none, or a pool for each of 4 scales, such as 4,2,1,1")
    return tuple(map(int, parts))


def variant_config(
    network: str, num_classes: int, branches: Branches, options: ModelOptions | None = None, pools: Pools | None = None
) -> ModelConfig:
    """The config that `create_variant` builds. Raises as it does."""
    config = model_config(network, num_classes=num_classes, branches=branches, options=options)
    if pools is None or pools == config.fusion_pools:
        return config
    # with other pools it is no longer the network of that name
    return dataclasses.replace(config, name=OPEN_MODEL, fusion_pools=pools)


def create_variant(
    network: str,
    *,
    num_classes: int,
    branches: Branches,
    options: ModelOptions | None = None,
    pools: Pools | None = None,
    backbone_weights: BackboneWeights = "none",
) -> ReSpike:
    """Build a network as `create_model` does, with other `pools` before fusion where they are given.

    Raises SettingError or RespikeError that names what cannot be built.
    """
    return ReSpike(variant_config(network, num_classes, branches, options, pools), backbone_weights)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A setting's results over its seeds: mean and, where there are two or more, the sample's deviation (n - 1).

    `figures` and `deviations` are shares (`video_top1`, `clip_top1`, `video_mean_class_accuracy`); `energy_joules` is
    a clip's, the stem dense, `sparse_energy_joules` with the stem by the density of its events.
    """

    setting: Setting
    num_seeds: int
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
        figures={name: statistics.fmean(values) for name, values in columns.items()},
        deviations={name: statistics.stdev(values) if len(rows) > 1 else None for name, values in columns.items()},
        # rates differ a little from seed to seed
        energy_joules=statistics.fmean(row["energy_joules"] for row in rows),
        sparse_energy_joules=statistics.fmean(row["sparse_energy_joules"] for row in rows),
        event_density=rows[0]["event_density"],
        num_parameters=rows[0]["num_parameters"],
    )
