"""Config: all that decides a network's shape, as a dataclass and as the JSON that is kept beside its weights."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from respike.common.config import from_plain, to_plain
from respike.common.errors import SettingError
from respike.zoo.model_options import SIZE_STEP
from respike.zoo.nn.backbone import STRIDES, BackboneSettings
from respike.zoo.nn.fusion import FUSION_KINDS, FusionKind
from respike.zoo.nn.spiking_resnet import SpikingResNetSettings

Branches = Literal["hybrid", "ann", "snn", "concat"]
BRANCHES: tuple[Branches, ...] = get_args(Branches)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that decides a network's shape.

    - `branches`: `hybrid` (both, fused), `concat` (both, without fusion), `ann` (key frames alone), `snn` (residuals
      alone).
    - `fusion_pools`: for each scale the factor by which maps are pooled before fusion, 0 for no fusion.
    - `fusion`: what a fused map that was pooled does to the fine one, `faithful` (replaces it) or `additive`.
    """

    name: str
    num_classes: int
    backbone: BackboneSettings
    snn: SpikingResNetSettings
    branches: Branches = "hybrid"
    fusion_pools: tuple[int, ...] = (4, 2, 1, 1)
    fusion: FusionKind = "faithful"

    def __post_init__(self) -> None:
        if self.branches not in BRANCHES:
            raise SettingError(f"branches {self.branches!r}", f"choose from {', '.join(BRANCHES)}")
        if self.fusion not in FUSION_KINDS:
            raise SettingError(f"fusion {self.fusion!r}", f"choose from {', '.join(FUSION_KINDS)}")
        if self.num_classes < 1:
            raise SettingError(f"a network for {self.num_classes} classes, allowed are 1 and more", "name the classes")
        if len(self.fusion_pools) != len(STRIDES):
            raise SettingError(f"{len(self.fusion_pools)} fusion pools for {len(STRIDES)} scales", "name one a scale")
        for stride, pool in zip(STRIDES, self.fusion_pools, strict=True):
            # the map of the smallest image has this many pixels a side
            side = SIZE_STEP // stride
            if pool < 0 or (pool and side % pool):
                raise SettingError(f"a pool of {pool} at stride {stride}", f"take 0 or a divisor of {side}")

    @property
    def uses_keys(self) -> bool:
        """Whether key frames enter the network."""
        return self.branches != "snn"

    @property
    def uses_residuals(self) -> bool:
        """Whether residuals enter the network."""
        return self.branches != "ann"

    def to_json(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return dict(to_plain(self))

    @classmethod
    def from_json(cls, value: object) -> "ModelConfig":
        """Read what `to_json` gave, now or before a setting was added: one that is missing has its default.

        Raises SettingError that names a field that is unknown, missing, of the wrong kind or out of range.
        """
        return from_plain(cls, value)
