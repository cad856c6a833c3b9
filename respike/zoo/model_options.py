"""Model options: the parts that a network is built from, and the image sizes that it takes. Loads no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from respike.common.config import Config, option
from respike.common.errors import SettingError

Neuron = Literal["lif", "plif"]
Reset = Literal["hard", "soft"]
# how the convolutions of the spiking branch start: torch's default, or Kaiming's normal rule over the fan-out
SNNInit = Literal["torch", "kaiming"]
FusionChoice = Literal["faithful", "additive", "none"]
LIFBackend = Literal["torch", "triton", "auto"]
LIF_BACKENDS: tuple[LIFBackend, ...] = get_args(LIFBackend)
# strides of the feature maps that can be fused
SCALES = (4, 8, 16, 32)
# what `list_models` returns, for those who must not load torch
MODEL_NAMES = ("respike_r18", "respike_r50", "respike_mobile", "respike_convnext", "respike_tiny", "respike")
# in pixels: both branches halve an image five times
SIZE_STEP = 32


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Config):
    """The parts of the network `respike`. The defaults are those of `respike_r18`.

    Sources: arXiv 2409.01564 for published values; Fang et al., ICCV 2021, for `plif`.
    """

    backbone: Annotated[
        str,
        option("timm's name of the key-frame branch, with or without the tag of its ImageNet weights.", metavar="NAME"),
    ] = "resnet18"
    snn_depth: Annotated[int, option("Depth of the spiking branch: 18 as published, or 34.")] = 18
    snn_width: Annotated[int, option("Channels of the spiking stem, 64 as published; multiples of 32.", ge=1)] = 64
    neuron: Annotated[Neuron, option("lif as published, or plif, where each layer learns its time constant.")] = "lif"
    tau: Annotated[float, option("Membrane time constant in steps; for plif the first value.", gt=0)] = 4 / 3
    reset: Annotated[Reset, option("hard, to 0 as published, or soft, by the threshold.")] = "hard"
    surrogate: Annotated[str, option("Gradient of a spike: arctan as published, sigmoid, triangle or rectangle.")] = (
        "arctan"
    )
    surrogate_alpha: Annotated[float | None, option("Sharpness of the surrogate; none: the usual one.")] = None
    snn_init: Annotated[
        SNNInit,
        option(
            "First weights of the spiking convolutions: torch's default as published, or kaiming, 3 to 6 times larger."
        ),
    ] = "torch"
    fusion: Annotated[
        FusionChoice,
        option("faithful as published, additive (adds the change alone), or none (branches meet in the head)."),
    ] = "faithful"
    fusion_scales: Annotated[tuple[int, ...], option("Strides of the feature maps that are fused.")] = SCALES

    def check(self) -> None:
        """Check the fusion scales. Raises SettingError."""
        for scale in self.fusion_scales:
            if scale not in SCALES:
                choices = ", ".join(map(str, SCALES))
                raise SettingError(f"fusion at scale {scale}", f"choose from {choices}", setting="fusion_scales")
        if not self.fusion_scales and self.fusion != "none":
            raise SettingError(
                f"{self.fusion} fusion at no scale", "give scales, or use fusion none", setting="fusion_scales"
            )


def nearest_sizes(side: int) -> str:
    """Return the allowed sizes in pixels nearest to one that is not allowed: `64 or 96`."""
    below = side // SIZE_STEP * SIZE_STEP
    return f"{below} or {below + SIZE_STEP}" if below > 0 else f"{SIZE_STEP}"


def is_size(side: int) -> bool:
    """Whether networks take images that are `side` pixels high or wide."""
    return side > 0 and side % SIZE_STEP == 0


def check_image_size(height: int, width: int) -> None:
    """Raise SettingError that names the nearest allowed sizes, unless both sides are multiples of 32 pixels."""
    for side in (height, width):
        if not is_size(side):
            raise SettingError(
                f"images are {height}×{width} (height × width), allowed are multiples of {SIZE_STEP}",
                f"for {side} take {nearest_sizes(side)}",
                setting="image_size",
            )
