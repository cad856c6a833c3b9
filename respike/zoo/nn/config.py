"""Model config: all that decides the shape of a network, kept as JSON with its weights."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from respike.common.config import Config, option
from respike.common.errors import SettingError
from respike.zoo.model_options import SIZE_STEP
from respike.zoo.nn.backbone import STRIDES, BackboneSettings
from respike.zoo.nn.fusion import FusionKind
from respike.zoo.nn.spiking_resnet import SpikingResNetSettings

Branches = Literal["hybrid", "ann", "snn", "concat"]
BRANCHES: tuple[Branches, ...] = get_args(Branches)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """All that decides the shape of a network.

    - `branches`: `hybrid` (both, fused), `concat` (both, without fusion), `ann` (key frames alone), `snn` (residuals
      alone).
    - `fusion_pools`: for each scale the factor by which maps are pooled before fusion, 0 for no fusion.
    - `fusion`: whether a fused map that was pooled replaces the fine one (`faithful`) or adds its change (`additive`).
    """

    name: str
    num_classes: Annotated[int, option("Number of classes.", ge=1)]
    backbone: BackboneSettings
    snn: SpikingResNetSettings
    branches: Branches = "hybrid"
    fusion_pools: tuple[int, ...] = (4, 2, 1, 1)
    fusion: FusionKind = "faithful"

    def check(self) -> None:
        """Check the pools against the scales. Raises SettingError."""
        if len(self.fusion_pools) != len(STRIDES):
            raise SettingError(
                f"{len(self.fusion_pools)} fusion pools for {len(STRIDES)} scales", "give one for each scale"
            )
        for stride, pool in zip(STRIDES, self.fusion_pools, strict=True):
            # in pixels, the side of the map of the smallest image
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
