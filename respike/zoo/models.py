"""Models: the networks by name, and `respike`, which is built from options."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from respike.common.errors import SettingError
from respike.common.text import pick
from respike.zoo.model_options import MODEL_NAMES, SCALES, ModelOptions, SNNInit
from respike.zoo.nn.backbone import STRIDES, BackboneSettings, BackboneWeights, backbone_of
from respike.zoo.nn.config import Branches, ModelConfig
from respike.zoo.nn.fusion import FUSION_KINDS, FusionKind
from respike.zoo.nn.lif import USUAL_ALPHAS, LIFSettings
from respike.zoo.nn.respike import ReSpike
from respike.zoo.nn.spiking_resnet import BLOCKS_BY_DEPTH, SpikingResNetSettings

__all__ = ["MODELS", "OPEN_MODEL", "ModelConfig", "ModelOptions", "ReSpike", "list_models"]

OPEN_MODEL = "respike"
# what `parse_fusion` calls the network's own fusion, and none at all
OWN_FUSION, NO_FUSION = "default", "none"
# factors by which maps are pooled before fusion, one for each scale, 0 for no fusion there
Pools = tuple[int, ...]
# at strides 4, 8, 16 and 32: at 224 pixels the fused maps have sides of 14 or less
_POOLS = (4, 2, 1, 1)


def model_config(
    name: str, *, num_classes: int, branches: Branches = "hybrid", options: ModelOptions | None = None
) -> ModelConfig:
    """Return the config of the network that `create_model` builds. Raises as `create_model` does."""
    make = pick(MODELS, name, "model").make_config
    if options is None:
        return make(num_classes, branches)
    if name != OPEN_MODEL:
        raise SettingError(f"{name} is fixed and takes no options", f"give them to {OPEN_MODEL!r}")
    return _assemble(num_classes, branches, options)


def _assemble(num_classes: int, branches: Branches, options: ModelOptions) -> ModelConfig:
    """Return the config of the network `respike` with these options."""
    alpha = options.surrogate_alpha
    lif = LIFSettings(
        tau=options.tau,
        learns_tau=options.neuron == "plif",
        reset=options.reset,
        surrogate=options.surrogate,
        surrogate_alpha=USUAL_ALPHAS.get(options.surrogate, 1.0) if alpha is None else alpha,
    )
    pools = (pool if scale in options.fusion_scales else 0 for scale, pool in zip(SCALES, _POOLS, strict=True))
    return ModelConfig(
        name=OPEN_MODEL,
        num_classes=num_classes,
        branches="concat" if branches == "hybrid" and options.fusion == "none" else branches,
        backbone=backbone_of(options.backbone),
        snn=SpikingResNetSettings.of_depth(options.snn_depth, width=options.snn_width, lif=lif),
        fusion_pools=tuple(pools),
        fusion=FUSION_KINDS[0] if options.fusion == "none" else options.fusion,
    )


def snn_init_of(name: str, options: ModelOptions | None = None) -> SNNInit:
    """Return how the spiking convolutions of the network `name` start. Raises as `default_image_size` does.

    It decides nothing about trained weights, so it is no part of a ModelConfig and of a checkpoint.
    """
    return pick(MODELS, name, "model").snn_init if options is None else options.snn_init


def options_of(config: ModelConfig) -> ModelOptions | None:
    """Return the options that give `config`, a network `respike`; None where no options do."""
    lif, snn, backbone = config.snn.lif, config.snn, config.backbone
    depths = [depth for depth, blocks in BLOCKS_BY_DEPTH.items() if blocks == snn.num_blocks]
    if config.name != OPEN_MODEL or not depths:
        return None
    scales = tuple(scale for scale, pool in zip(SCALES, config.fusion_pools, strict=True) if pool)
    usual_alpha = USUAL_ALPHAS.get(lif.surrogate) == lif.surrogate_alpha
    tag = f".{backbone.imagenet_tag}" if backbone.imagenet_tag else ""
    options = ModelOptions(
        backbone=backbone.timm_name + tag,
        snn_depth=depths[0],
        snn_width=snn.stem_channels,
        neuron="plif" if lif.learns_tau else "lif",
        tau=lif.tau,
        reset=lif.reset,
        surrogate=lif.surrogate,
        surrogate_alpha=None if usual_alpha else lif.surrogate_alpha,
        fusion=config.fusion if scales else "none",
        fusion_scales=scales,
    )
    return options if _assemble(config.num_classes, config.branches, options) == config else None


def respike_r18(num_classes: int, branches: Branches) -> ModelConfig:
    """The published network with ResNet-18 as its ANN branch: 30,132,773 parameters at 101 classes."""
    return ModelConfig(
        name="respike_r18",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="resnet18", imagenet_tag="tv_in1k"),
        snn=SpikingResNetSettings(),
    )


def respike_r50(num_classes: int, branches: Branches) -> ModelConfig:
    """The published network with ResNet-50 as its ANN branch: 44,708,389 parameters at 101 classes."""
    return ModelConfig(
        name="respike_r50",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="resnet50", imagenet_tag="tv2_in1k"),
        snn=SpikingResNetSettings(),
    )


def respike_mobile(num_classes: int, branches: Branches) -> ModelConfig:
    """A network for small devices: MobileNetV4 for the key frames, half the channels for the events.

    There are few key frames, so beside a small ANN a full-width SNN would cost most. Fusion is additive, at
    the three coarse scales. At the finest, pooling and attention would cost more than an SNN of 32 channels gains.
    """
    return ModelConfig(
        name="respike_mobile",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="mobilenetv4_conv_small", imagenet_tag="e2400_r224_in1k"),
        snn=SpikingResNetSettings.of_depth(18, width=32),
        fusion_pools=(0, 2, 1, 1),
        fusion="additive",
    )


def respike_convnext(num_classes: int, branches: Branches) -> ModelConfig:
    """A network of recent parts: ConvNeXt-Tiny, pretrained on ImageNet-12k, parametric LIF, additive fusion.

    ConvNeXt-Tiny has about the size and operations of ResNet-50 and better weights. Neurons that learn τ and a fusion
    that keeps fine detail cost almost nothing.
    """
    return ModelConfig(
        name="respike_convnext",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="convnext_tiny", imagenet_tag="in12k_ft_in1k"),
        snn=SpikingResNetSettings(lif=LIFSettings(learns_tau=True)),
        fusion="additive",
    )


def respike_tiny(num_classes: int, branches: Branches) -> ModelConfig:
    """A small network for clips of 32×32 or 64×64 pixels on a CPU: for tests, the demo and first tries.

    It fuses at the two coarse scales, without pooling. At this image size, attention on the fine maps would cost most
    of the time, and pooling them would lose the direction of motion.
    """
    return ModelConfig(
        name="respike_tiny",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="resnet10t", channels=(32, 32, 64, 96), stem_width=8),
        snn=SpikingResNetSettings(stem_channels=32, channels=(32, 32, 64, 96), num_blocks=(1, 1, 1, 1)),
        fusion_pools=(0, 0, 1, 1),
    )


def respike(num_classes: int, branches: Branches) -> ModelConfig:
    """The network that takes options, here with the defaults."""
    return _assemble(num_classes, branches, ModelOptions())


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One network by name.

    `make_config` returns its config for a number of classes and branches; `image_size` is the side in pixels that it is
    trained at unless the user asks for another. `snn_init` is how its spiking convolutions start.
    """

    make_config: Callable[[int, Branches], ModelConfig]
    image_size: int = 224
    snn_init: SNNInit = "torch"


MODELS = {
    "respike_r18": ModelEntry(make_config=respike_r18),
    "respike_r50": ModelEntry(make_config=respike_r50),
    "respike_mobile": ModelEntry(make_config=respike_mobile, snn_init="kaiming"),
    "respike_convnext": ModelEntry(make_config=respike_convnext, snn_init="kaiming"),
    "respike_tiny": ModelEntry(make_config=respike_tiny, image_size=64, snn_init="kaiming"),
    OPEN_MODEL: ModelEntry(make_config=respike),
}


def list_models() -> list[str]:
    """Return the names that `create_model` takes."""
    return list(MODEL_NAMES)


def default_image_size(name: str) -> int:
    """Return the side in pixels that the network `name` is trained at by default.

    Raises RespikeError that suggests the nearest name and lists all.
    """
    return pick(MODELS, name, "model").image_size


@dataclass(frozen=True, kw_only=True)
class FusionVariant:
    """Another way for a network to fuse; None keeps the network's own.

    `kind` is what a fused map that was pooled does to the fine one, see `Fusion`. `pools` are the factors by which maps
    are pooled first.
    """

    kind: FusionKind | None = None
    pools: Pools | None = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is fused at any scale."""
        return self.pools is not None and not any(self.pools)

    @property
    def name(self) -> str:
        """The variant as `parse_fusion` reads it: `default`, `none`, `additive`, `4,2,1,1` or `additive:4,2,1,1`."""
        if self.is_none:
            return NO_FUSION
        pools = "" if self.pools is None else ",".join(map(str, self.pools))
        return ":".join(part for part in (self.kind, pools) if part) or OWN_FUSION


OWN_VARIANT = FusionVariant()


def parse_fusion(text: str) -> FusionVariant:
    """Read `default`, `none`, a kind, a pool for each scale such as `4,2,1,1`, or both, as `additive:4,2,1,1`.

    Raises SettingError on any other text.
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
    """Return the config of the network that `create_variant` builds. Raises as it does."""
    config = model_config(network, num_classes=num_classes, branches=branches, options=options)
    pools = config.fusion_pools if fusion.pools is None else fusion.pools
    # without pooling both kinds are the same
    kind = fusion.kind if fusion.kind is not None and any(pool > 1 for pool in pools) else config.fusion
    changed = dataclasses.replace(config, fusion_pools=pools, fusion=kind)
    # with another fusion it is no longer the network of that name
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
    """Build a network as `create_model` does, but with another fusion.

    Raises SettingError or RespikeError that names what cannot be built.
    """
    config = variant_config(network, num_classes, branches, options, fusion)
    return ReSpike(config, backbone_weights, snn_init_of(network, options))
