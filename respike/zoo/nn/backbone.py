"""Backbone: the ANN branch, any timm network with feature maps at strides 4, 8, 16 and 32."""

import difflib
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import huggingface_hub
import timm
from huggingface_hub import get_session
from torch import Tensor, nn

from respike.common.config import Config
from respike.common.errors import RespikeError, SettingError

BackboneWeights = Literal["none", "imagenet"]
STRIDES = (4, 8, 16, 32)
_LAST_FOUR = (-4, -3, -2, -1)
_WEIGHTS_NAME = "model.safetensors"
_PROBE_SECONDS = 10
_OFFLINE_HINT = (
    "connect to the network and try again, or copy the Hugging Face cache (HF_HOME) from a machine that has the "
    "weights, or start the backbone from random weights (backbone_weights none)"
)


@dataclass(frozen=True, kw_only=True)
class BackboneSettings(Config):
    """The timm network for the key frames.

    - `timm_name`: timm's name without a tag.
    - `channels`, `stem_width`: narrow its four stages and its stem, for networks with such options; None: as in timm.
    - `imagenet_tag`: the tag of its ImageNet weights, "" where no weights fit.
    """

    timm_name: str
    channels: tuple[int, ...] | None = None
    stem_width: int | None = None
    imagenet_tag: str = ""

    def check(self) -> None:
        """Check that timm has the network. Raises SettingError that suggests the nearest name."""
        # timm would look for a name like hf-hub:owner/repo on the network, and a checkpoint may hold any name
        if not timm.is_model(self.timm_name):
            near = difflib.get_close_matches(self.timm_name, timm.list_models(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "choose from timm.list_models()"
            raise SettingError(f"timm has no network {self.timm_name!r}", hint)

    @property
    def pixel_mean(self) -> tuple[float, float, float]:
        """The mean that is subtracted from red, green and blue, on a scale of 0 to 1."""
        return self._pixel_figures("mean")

    @property
    def pixel_deviation(self) -> tuple[float, float, float]:
        """The deviation that red, green and blue are divided by, on a scale of 0 to 1."""
        return self._pixel_figures("std")

    def _pixel_figures(self, field: str) -> tuple[float, float, float]:
        name = f"{self.timm_name}.{self.imagenet_tag}" if self.imagenet_tag else self.timm_name
        figures = _pretrained_facts(name)
        if figures is None:
            raise SettingError(f"timm has no weights {name!r}", "choose from timm.list_pretrained()")
        red, green, blue = getattr(figures, field)
        return float(red), float(green), float(blue)


def backbone_of(name: str) -> BackboneSettings:
    """Return the settings of a timm network such as `resnet18` or `resnet18.tv_in1k`; the tag's default is timm's.

    Raises SettingError where timm has no such network or no such weights.
    """
    network, _, tag = name.partition(".")
    settings = BackboneSettings(timm_name=network)
    figures = _pretrained_facts(name)
    if tag and figures is None:
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{network}.*")]
        raise SettingError(f"timm has no weights {tag!r} for {network}", f"choose from {', '.join(tags) or 'none'}")
    own_tag = str(figures.tag) if figures is not None and figures.has_weights else ""
    return replace(settings, imagenet_tag=tag or own_tag)


def _pretrained_facts(name: str) -> Any:
    """Return what timm knows of a network, or of its weights where `name` has a tag; None where it knows nothing."""
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # the network has no weights with this tag
        return None


def create_backbone(settings: BackboneSettings, weights: BackboneWeights = "none") -> tuple[nn.Module, tuple[int, ...]]:
    """Build the network; return it and the channels of its four maps. `key_maps` runs it.

    With `weights` `imagenet` they come from the Hugging Face cache or are downloaded through timm. Raises SettingError
    where there are no such weights or the maps have other strides, RespikeError where the download fails.
    """
    if weights not in get_args(BackboneWeights):
        raise SettingError(f"backbone weights {weights!r}", f"choose from {', '.join(get_args(BackboneWeights))}")
    network = _fetch(settings) if weights == "imagenet" else _build(settings)
    facts: Any = network.feature_info
    if tuple(facts.reduction()) != STRIDES:
        raise SettingError(
            f"the backbone {settings.timm_name!r} has maps at strides {tuple(facts.reduction())}, needed are {STRIDES}",
            "choose another timm backbone",
        )
    return network, tuple(facts.channels())


def key_maps(network: nn.Module, keys: Tensor) -> list[Tensor]:
    """Run a backbone on normalised key frames `[G, 3, H, W]`: four maps `[G, C, H/4, W/4]` … `[G, C, H/32, W/32]`.

    Raises SettingError where the network takes images of one size only, and this is another.
    """
    try:
        maps: list[Tensor] = network(keys)
    except AssertionError as error:  # timm's error for networks of one image size
        raise SettingError(
            f"the backbone takes no key frames of this size: {error}", "choose another backbone"
        ) from error
    if str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC"):
        return [channels_last.permute(0, 3, 1, 2) for channels_last in maps]
    return maps


def _build(settings: BackboneSettings) -> nn.Module:
    asked = {"channels": settings.channels, "stem_width": settings.stem_width}
    options: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    try:
        network: nn.Module = timm.create_model(
            settings.timm_name, pretrained=False, features_only=True, out_indices=_LAST_FOUR, **options
        )
    # networks without maps, with fewer than four, or without such options raise different errors
    except (RuntimeError, TypeError, AssertionError, AttributeError, IndexError, ValueError) as error:
        raise SettingError(
            f"the backbone {settings.timm_name!r} gives no four maps{f' with {options}' if options else ''}: {error}",
            "choose another timm backbone, such as resnet18, convnext_tiny or mobilenetv4_conv_small",
        ) from error
    return network


def _fetch(settings: BackboneSettings) -> nn.Module:
    if not settings.imagenet_tag:
        raise SettingError(
            f"there are no ImageNet weights for the backbone {settings.timm_name!r} as this network has it",
            "start it from random weights (backbone_weights none), or use respike_r18 or respike_r50",
        )
    name = f"{settings.timm_name}.{settings.imagenet_tag}"
    try:
        overlay = {"file": _weights_file(f"timm/{name}")}
        network: nn.Module = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True, out_indices=_LAST_FOUR
        )
    # timm, the hub and the HTTP library below it raise errors of their own, not all of them OSErrors
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RespikeError(f"cannot fetch the ImageNet weights {name}: {reason}", _OFFLINE_HINT) from error
    return network


def _weights_file(repository: str) -> str:
    """Return the path of the weights in the Hugging Face cache; download them if they are missing."""
    cached = huggingface_hub.try_to_load_from_cache(repository, _WEIGHTS_NAME)
    if isinstance(cached, str):
        return cached
    # without a network this fails at once; the download would try again for a minute
    get_session().head(huggingface_hub.constants.ENDPOINT, timeout=_PROBE_SECONDS)
    return huggingface_hub.hf_hub_download(repository, _WEIGHTS_NAME)
