"""Model options: what a network is built from, and the image sizes it takes. Loads no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from respike.common.errors import SettingError

if TYPE_CHECKING:
    pass


Neuron = Literal["lif", "plif"]
Reset = Literal["hard", "soft"]
FusionChoice = Literal["faithful", "additive", "none"]
SCALES = (4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What `create_model("respike", …)` is put together of. The defaults are those of `respike_r18`.

    - `backbone`: timm's name of the ANN branch, with or without the tag of its ImageNet weights. Any network with maps
      at strides 4, 8, 16 and 32: accuracy for computation is won here first, key frames being pictures.
    - `snn_depth`: 18, as published, or 34: more blocks see longer motions, for about twice the spiking operations.
    - `snn_width`: channels of the SNN's stem, 64 as published; a multiple of 32 where branches are fused. Parameters
      and operations grow with its square.
    - `neuron`: `lif`, as published, or `plif`, whose layers each learn how fast they forget (Fang et al., ICCV 2021).
    - `tau`: the membrane's time constant in steps, for `plif` the first.
    - `reset`: `hard`, to 0, as published; `soft`, by the threshold, which keeps the charge above it.
    - `surrogate`: how gradients pass a spike: `arctan` as published, `sigmoid`, `triangle` or `rectangle`;
      `surrogate_alpha` is its sharpness, None for the usual one.
    - `fusion`: `faithful`, as published, where the fused coarse map replaces a fine one; `additive`, which adds only
      the change to it and so keeps the detail that pooling takes; `none`, where the branches meet in the head alone.
    - `fusion_scales`: the strides at which is fused. The fine ones cost most, the coarse ones tell most.
    """

    backbone: str = "resnet18"
    snn_depth: int = 18
    snn_width: int = 64
    neuron: Neuron = "lif"
    tau: float = 4 / 3
    reset: Reset = "hard"
    surrogate: str = "arctan"
    surrogate_alpha: float | None = None
    fusion: FusionChoice = "faithful"
    fusion_scales: tuple[int, ...] = SCALES

    def __post_init__(self) -> None:
        for name, choices in (("neuron", Neuron), ("reset", Reset), ("fusion", FusionChoice)):
            if getattr(self, name) not in get_args(choices):
                raise SettingError(f"{name} {getattr(self, name)!r}", f"choose from {', '.join(get_args(choices))}")
        for scale in self.fusion_scales:
            if scale not in SCALES:
                raise SettingError(f"fusion at scale {scale}", f"choose from {', '.join(map(str, SCALES))}")
        if not self.fusion_scales and self.fusion != "none":
            raise SettingError(f"{self.fusion} fusion at no scale", "name scales, or take the fusion none")


SIZE_STEP = 32  # both branches halve an image five times


def nearest_sizes(side: int) -> str:
    """The sizes in pixels next to one that a network does not take: `64 or 96`."""
    below = side // SIZE_STEP * SIZE_STEP
    return f"{below} or {below + SIZE_STEP}" if below > 0 else f"{SIZE_STEP}"


def is_size(side: int) -> bool:
    """Whether a network takes images that are `side` pixels high or wide."""
    return side > 0 and side % SIZE_STEP == 0


def check_image_size(height: int, width: int) -> None:
    """Raise SettingError that names the nearest two sizes, unless both sides are multiples of 32."""
    for side in (height, width):
        if not is_size(side):
            raise SettingError(
                f"images are {height}×{width} (height × width), allowed are multiples of {SIZE_STEP}",
                f"for {side} take {nearest_sizes(side)}",
            )


LIFBackend = Literal["torch", "triton", "auto"]


LIF_BACKENDS: tuple[LIFBackend, ...] = get_args(LIFBackend)
