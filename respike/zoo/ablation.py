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
from respike.zoo.nn.backbone import STRIDES, BackboneWeights
from respike.zoo.nn.config import BRANCHES, Branches, ModelConfig
from respike.zoo.nn.fusion import FUSION_KINDS, FusionKind
from respike.zoo.nn.respike import ReSpike

OWN_FUSION = "default"
NO_FUSION = "none"
Pools = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FusionVariant:
    """How a network fuses where it is not to do it in its own way; None is the network's own.

    `kind` is what a fused map that was pooled does to the fine one, `pools` are the factors by which maps are pooled
    first, one a scale and 0 for no fusion there.
    """

    kind: FusionKind | None = None
    pools: Pools | None = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is fused at any scale."""
        return self.pools is not None and not any(self.pools)

    @property
    def name(self) -> str:
        """As `parse_fusion` reads it: `default`, `none`, `additive`, `4,2,1,1` or `additive:4,2,1,1`."""
        if self.is_none:
            return NO_FUSION
        pools = "" if self.pools is None else ",".join(map(str, self.pools))
        return ":".join(part for part in (self.kind, pools) if part) or OWN_FUSION


OWN_VARIANT = FusionVariant()


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


def parse_fusion(text: str) -> FusionVariant:
    """Read `default`, `none`, a kind, one pool a scale such as `4,2,1,1`, or both, as `additive:4,2,1,1`.

    Raises SettingError on others.
    """
    if text == OWN_FUSION:
        return OWN_VARIANT
    if text == NO_FUSION:
        return FusionVariant(pools=(0,) * len(STRIDES))
    kind = next((kind for kind in FUSION_KINDS if kind == text.partition(":")[0]), None)
    pools = text if kind is None else text.partition(":")[2]
    if kind is not None and pools == "" and ":" not in text:
        return FusionVariant(kind=kind)
    parts = pools.split(",")
    if len(parts) != len(STRIDES) or not all(part.isdecimal() for part in parts):
        raise SettingError(
            f"fusion is {text!r}",
            f"give default, none, {', '.join(FUSION_KINDS)}, a pool for each of {len(STRIDES)} scales such as 4,2,1,1, "
            "or both, such as additive:4,2,1,1",
        )
    return FusionVariant(kind=kind, pools=tuple(map(int, parts)))


def variant_config(
    network: str,
    num_classes: int,
    branches: Branches,
    options: ModelOptions | None = None,
    fusion: FusionVariant = OWN_VARIANT,
) -> ModelConfig:
    """The config that `create_variant` builds. Raises as it does."""
    config = model_config(network, num_classes=num_classes, branches=branches, options=options)
    pools = config.fusion_pools if fusion.pools is None else fusion.pools
    # where nothing is pooled both kinds are one
    kind = fusion.kind if fusion.kind is not None and any(pool > 1 for pool in pools) else config.fusion
    changed = dataclasses.replace(config, fusion_pools=pools, fusion=kind)
    # fused otherwise it is no longer the network of that name
    return config if changed == config else dataclasses.replace(changed, name=OPEN_MODEL)


def create_variant(
    network: str,
    *,
    num_classes: int,
    branches: Branches,
    options: ModelOptions | None = None,
    fusion: FusionVariant = OWN_VARIANT,
    backbone_weights: BackboneWeights = "none",
) -> ReSpike:
    """Build a network as `create_model` does, but fused as `fusion` says.

    Raises SettingError or RespikeError that names what cannot be built.
    """
    return ReSpike(variant_config(network, num_classes, branches, options, fusion), backbone_weights)


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
