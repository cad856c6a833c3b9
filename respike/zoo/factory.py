"""Factory: `create_model`, networks by name with random or pretrained weights."""

from dataclasses import replace
from pathlib import Path

from respike.common.errors import MismatchError, SettingError
from respike.common.progress import SILENCE, Progress
from respike.common.text import pick
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.model_options import ModelOptions
from respike.zoo.models import MODELS, model_config, snn_init_of
from respike.zoo.nn.backbone import BackboneWeights
from respike.zoo.nn.config import Branches, ModelConfig
from respike.zoo.nn.respike import ReSpike


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
    """Build a network with random weights, drawn from torch's generator, or pretrained ones. It is in training mode.

    - `name`: one of `list_models()`. Only `respike` takes `options`; `backbone` is a shorthand for that option.
    - `num_classes`: 1 or more; None only with `pretrained`: as many as the pretrained network.
    - `branches`: `hybrid` (the default), `ann`, `snn` or `concat` (both branches without fusion).
    - `backbone_weights`: `imagenet` starts the ANN branch from timm's ImageNet weights, downloaded once.
    - `pretrained`: what `respike.zoo.load_checkpoint` takes: a name such as `respike_tiny.demo16` from
      `respike zoo list`, a path, or an address. The network must be the same. With another number of classes its head
      has random weights.

    Raises SettingError or RespikeError that lists the choices, RespikeError where a download fails, MismatchError that
    names in what the pretrained network differs.
    """
    if backbone is not None:
        options = replace(options or ModelOptions(), backbone=backbone)
    if pretrained is not None:
        return _load_pretrained(name, num_classes, branches, options, pretrained, progress)
    if num_classes is None:
        raise SettingError(
            f"{name} without a number of classes", "give num_classes, or pretrained", setting="num_classes"
        )
    config = model_config(name, num_classes=num_classes, branches=branches or "hybrid", options=options)
    return ReSpike(config, backbone_weights, snn_init_of(name, options))


def _load_pretrained(
    name: str,
    num_classes: int | None,
    branches: Branches | None,
    options: ModelOptions | None,
    pretrained: str | Path,
    progress: Progress,
) -> ReSpike:
    pick(MODELS, name, "model")  # refuse an unknown name before fetching anything
    source, _ = load_checkpoint(pretrained, progress=progress)
    own = source.config
    wanted = replace(own, num_classes=num_classes or own.num_classes)
    if name != own.name or options is not None or (branches or own.branches) != own.branches:
        asked = model_config(name, num_classes=wanted.num_classes, branches=branches or own.branches, options=options)
        _require_same(asked, wanted, pretrained)
    if wanted == own:
        return source.train()
    model = ReSpike(wanted, snn_init=snn_init_of(name, options))
    body = {key: tensor for key, tensor in source.state_dict().items() if not key.startswith("head.")}
    model.load_state_dict(model.state_dict() | body)
    return model


def _require_same(asked: ModelConfig, own: ModelConfig, pretrained: str | Path) -> None:
    ours, theirs = asked.to_json(), own.to_json()
    for field, value in ours.items():
        if value != theirs[field]:
            raise MismatchError(
                f"the weights {pretrained} are of a network whose {field} is {theirs[field]!r}, not {value!r}",
                f"create {own.name!r} as the weights have it, or start a training from them (init)",
            )
