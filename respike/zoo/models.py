"""Models: the networks by name, and `respike`, which is put together of options."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from respike.errors import MismatchError, SettingError
from respike.progress import SILENCE, Progress
from respike.registry import Registry
from respike.zoo.model_options import SCALES, ModelOptions
from respike.zoo.nn.backbone import BackboneSettings, BackboneWeights, backbone_of
from respike.zoo.nn.config import Branches, ModelConfig
from respike.zoo.nn.fusion import FUSION_KINDS
from respike.zoo.nn.lif import LIFSettings
from respike.zoo.nn.respike import ReSpike
from respike.zoo.nn.spiking_resnet import BLOCKS_BY_DEPTH, SpikingResNetSettings
from respike.zoo.nn.surrogate import USUAL_ALPHAS

__all__ = ["MODELS", "OPEN_MODEL", "ModelConfig", "ModelOptions", "ReSpike", "create_model", "list_models"]

OPEN_MODEL = "respike"
# by which maps are pooled before fusion, at strides 4, 8, 16 and 32: at 224 pixels all meet at 14 or less
_POOLS = (4, 2, 1, 1)

# (number of classes, branches) → the network's config
MODELS: Registry[Callable[[int, Branches], ModelConfig]] = Registry("model")


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return MODELS.names()


def model_config(
    name: str, *, num_classes: int, branches: Branches = "hybrid", options: ModelOptions | None = None
) -> ModelConfig:
    """Return the config that `create_model` builds, without building it. Raises as `create_model` does."""
    make = MODELS.get(name)
    if options is None:
        return make(num_classes, branches)
    if name != OPEN_MODEL:
        raise SettingError(f"{name} is fixed and takes no options", f"give them to {OPEN_MODEL!r}")
    return _assemble(num_classes, branches, options)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    branches: Branches | None = None,
    backbone_weights: BackboneWeights = "none",
    backbone: str | None = None,
    options: ModelOptions | None = None,
    pretrained: str | Path | None = None,
    progress: Progress = SILENCE,
) -> ReSpike:
    """Build a network, with weights drawn from torch's generator or those that are named.

    - `name`: one of `list_models()`. All are fixed but `respike`, which takes `options`; `backbone` is a short way to
      one of them.
    - `num_classes`: 1 or more; may be left out with `pretrained`, whose own it then has.
    - `branches`: `hybrid` (unless something else is said), `ann`, `snn` or `concat` (both branches, no fusion).
    - `backbone_weights`: `imagenet` starts the ANN branch from timm's ImageNet weights, which needs the network once.
    - `pretrained`: what `respike.zoo.load_checkpoint` takes, such as `respike_tiny.demo16`: a name from
      `respike zoo list`, a path, or an address. The network must be the same; with another number of classes its head
      starts from chance.

    Raises SettingError or RespikeError that lists the choices, RespikeError where weights cannot be fetched, and
    MismatchError that names in what the pretrained network differs.
    """
    if backbone is not None:
        options = replace(options or ModelOptions(), backbone=backbone)
    if pretrained is not None:
        return _load_pretrained(name, num_classes, branches, options, pretrained, progress)
    if num_classes is None:
        raise SettingError(f"{name} for how many classes?", "give num_classes, or pretrained")
    config = model_config(name, num_classes=num_classes, branches=branches or "hybrid", options=options)
    return ReSpike(config, backbone_weights)


def _load_pretrained(
    name: str,
    num_classes: int | None,
    branches: Branches | None,
    options: ModelOptions | None,
    pretrained: str | Path,
    progress: Progress,
) -> ReSpike:
    # imported late: a checkpoint is rebuilt by this file
    from respike.zoo.checkpoint import load_checkpoint

    MODELS.get(name)  # an unknown name is told before anything is fetched
    source, _ = load_checkpoint(pretrained, progress=progress)
    own = source.config
    wanted = replace(own, num_classes=num_classes or own.num_classes)
    if name != own.name or options is not None or (branches or own.branches) != own.branches:
        asked = model_config(name, num_classes=wanted.num_classes, branches=branches or own.branches, options=options)
        _require_same(asked, wanted, pretrained)
    if wanted == own:
        return source.train()
    model = ReSpike(wanted)
    body = {key: tensor for key, tensor in source.state_dict().items() if not key.startswith("head.")}
    model.load_state_dict(model.state_dict() | body)
    return model


def _require_same(asked: ModelConfig, own: ModelConfig, pretrained: str | Path) -> None:
    ours, theirs = asked.to_json(), own.to_json()
    for field, value in ours.items():
        if value != theirs[field]:
            raise MismatchError(
                f"the weights {pretrained} are of a network whose {field} is {theirs[field]!r}, asked was {value!r}",
                f"create {own.name!r} as the weights have it, or train from them with `respike train --init`",
            )


def _assemble(num_classes: int, branches: Branches, options: ModelOptions) -> ModelConfig:
    """The config that options stand for."""
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


def options_of(config: ModelConfig) -> ModelOptions | None:
    """The options that `config`, of the network `respike`, was put together of; None where no options give it."""
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


@MODELS.register("respike_r18")
def respike_r18(num_classes: int, branches: Branches) -> ModelConfig:
    """The published network with ResNet-18 as its ANN branch: 30,132,773 parameters at 101 classes."""
    return ModelConfig(
        name="respike_r18",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="resnet18", imagenet_tag="tv_in1k"),
        snn=SpikingResNetSettings(),
    )


@MODELS.register("respike_r50")
def respike_r50(num_classes: int, branches: Branches) -> ModelConfig:
    """The published network with ResNet-50 as its ANN branch: 44,708,389 parameters at 101 classes."""
    return ModelConfig(
        name="respike_r50",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="resnet50", imagenet_tag="tv2_in1k"),
        snn=SpikingResNetSettings(),
    )


@MODELS.register("respike_mobile")
def respike_mobile(num_classes: int, branches: Branches) -> ModelConfig:
    """A network for small devices: MobileNetV4 for the key frames, half the channels for the events.

    Key frames are few, so that an ANN made for phones leaves the SNN as the larger part unless it is narrowed too. It
    fuses additively, at the three coarse scales: at the finest, pooling and the pooled attention cost more than an
    SNN of 32 channels can ask.
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


@MODELS.register("respike_convnext")
def respike_convnext(num_classes: int, branches: Branches) -> ModelConfig:
    """A network of today's parts: ConvNeXt-Tiny, pretrained on ImageNet-12k, parametric LIF, additive fusion.

    ConvNeXt-Tiny has about ResNet-50's size and operations, and weights that are a good deal better; neurons that
    learn τ, and a fusion that keeps fine detail, cost next to nothing more.
    """
    return ModelConfig(
        name="respike_convnext",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="convnext_tiny", imagenet_tag="in12k_ft_in1k"),
        snn=SpikingResNetSettings(lif=LIFSettings(learns_tau=True)),
        fusion="additive",
    )


@MODELS.register("respike_tiny")
def respike_tiny(num_classes: int, branches: Branches) -> ModelConfig:
    """A network of the same build for 32×32 or 64×64 clips on a CPU: tests, the demo, first tries.

    It fuses at the two coarse scales alone, and unpooled: of images this small the fine maps would cost most of the
    attention, and pooling them would cost the direction of motion.
    """
    return ModelConfig(
        name="respike_tiny",
        num_classes=num_classes,
        branches=branches,
        backbone=BackboneSettings(timm_name="resnet10t", channels=(32, 32, 64, 96), stem_width=8),
        snn=SpikingResNetSettings(stem_channels=32, channels=(32, 32, 64, 96), num_blocks=(1, 1, 1, 1)),
        fusion_pools=(0, 0, 1, 1),
    )


@MODELS.register(OPEN_MODEL)
def respike(num_classes: int, branches: Branches) -> ModelConfig:
    """The network that takes options, with none given."""
    return _assemble(num_classes, branches, ModelOptions())
