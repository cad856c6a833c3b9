"""Models: the networks by name."""

from collections.abc import Callable

from respike.registry import Registry
from respike.zoo.nn.backbone import BackboneSettings, BackboneWeights
from respike.zoo.nn.respike import Branches, ModelConfig, ReSpike
from respike.zoo.nn.spiking_resnet import SpikingResNetSettings

__all__ = ["MODELS", "ModelConfig", "ReSpike", "create_model", "list_models", "model_config"]

# (number of classes, branches) → the network's config
MODELS: Registry[Callable[[int, Branches], ModelConfig]] = Registry("model")


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return MODELS.names()


def model_config(name: str, *, num_classes: int, branches: Branches = "hybrid") -> ModelConfig:
    """Return the config that `create_model` builds, without building it. Raises as `create_model` does."""
    return MODELS.get(name)(num_classes, branches)


def create_model(
    name: str, *, num_classes: int, branches: Branches = "hybrid", backbone_weights: BackboneWeights = "none"
) -> ReSpike:
    """Build a network with weights drawn from torch's generator.

    `name` is one of `list_models()`; `num_classes` is 1 or more; `branches` is `hybrid`, `ann`, `snn` or `concat`
    (both branches, no fusion); `backbone_weights="imagenet"` starts the ANN branch from timm's ImageNet weights, which
    needs the network once.

    Raises SettingError or RespikeError that lists the choices, and RespikeError where weights cannot be fetched.
    """
    return ReSpike(model_config(name, num_classes=num_classes, branches=branches), backbone_weights)


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
        snn=SpikingResNetSettings(stem_channels=32, channels=(32, 32, 64, 96), blocks_per_stage=1),
        fusion_pools=(0, 0, 1, 1),
    )
