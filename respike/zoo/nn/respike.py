"""ReSpike: an ANN for the key frames, an SNN for the residuals, and a fusion of both at each scale.

Shapes: B clips, N groups of a clip, R residuals of a group, K classes. Rows are folded for speed into G = B·N groups
and R·G residuals, step by step as in `lif.py`.

Source: *ReSpike: Residual Frames-based Hybrid Spiking Neural Networks for Efficient Action Recognition*
(arXiv 2409.01564). `docs/model.md` lists every number and every deviation.
"""

import torch
from torch import Tensor, nn

from respike.common.errors import SettingError
from respike.types import COLORS, YCC_TO_RGB, Color
from respike.zoo.model_options import SIZE_STEP, SNNInit, check_image_size
from respike.zoo.nn.activation_checkpointing import run_checkpointed
from respike.zoo.nn.backbone import BackboneWeights, create_backbone, key_maps
from respike.zoo.nn.config import BRANCHES, Branches, ModelConfig
from respike.zoo.nn.fusion import Fusion
from respike.zoo.nn.spiking_resnet import SpikingResNet

__all__ = ["BRANCHES", "SIZE_STEP", "Branches", "ModelConfig", "ReSpike"]


class ReSpike(nn.Module):
    """The hybrid network, or one of its branches, see `config.branches`. `create_model` makes one.

    With `uses_activation_checkpointing`, training keeps only the features between the stages of the spiking branch. It
    computes the rest again in the backward pass: less memory, more time, the same gradients.
    """

    uses_activation_checkpointing = False

    def __init__(
        self, config: ModelConfig, backbone_weights: BackboneWeights = "none", snn_init: SNNInit = "torch"
    ) -> None:
        super().__init__()
        self.config = config
        self.pixel_mean, self.pixel_deviation = config.backbone.pixel_mean, config.backbone.pixel_deviation
        num_features = 0
        if config.uses_residuals:
            self.snn = SpikingResNet(config.snn, snn_init)
            num_features += config.snn.channels[-1]
        if config.uses_keys:
            self.ann, ann_channels = create_backbone(config.backbone, backbone_weights)
            num_features += ann_channels[-1]
        if config.branches == "hybrid":
            scales = zip(config.snn.channels, ann_channels, config.fusion_pools, strict=True)
            self.fusions = nn.ModuleList(
                Fusion(channels, context, pool=pool, kind=config.fusion) if pool else nn.Identity()
                for channels, context, pool in scales
            )
        self.head = nn.Linear(num_features, config.num_classes)
        # makes 3×3 convolutions on a CPU about twice as fast; names and shapes do not change
        self.to(memory_format=torch.channels_last)

    def forward(self, keys: Tensor, residuals: Tensor, color: Color) -> Tensor:
        """Classify clips: return the logits `[B, K]`, a mean over the groups of each clip.

        - `keys` `[B, N, 3, H, W]`: RGB, uint8 or float, from 0 to 255.
        - `residuals` `[B, N, R, 3, H, W]`: int16 or float, in 8-bit units and the colour `color`.

        H and W are multiples of 32. A branch alone ignores the other's input. Raises SettingError that names what does
        not fit.
        """
        return self.group_logits(keys, residuals, color).mean(dim=1)

    def group_logits(self, keys: Tensor, residuals: Tensor, color: Color) -> Tensor:
        """Classify each group of each clip: return the logits `[B, N, K]`. Takes what `forward` takes."""
        self._check(keys, residuals, color)
        maps = key_maps(self.ann, self._normalise_keys(keys).flatten(0, 1)) if self.config.uses_keys else []
        pooled = [maps[-1].mean(dim=(2, 3))] if maps else []
        if self.config.uses_residuals:
            steps_first = self._normalise_residuals(residuals, color).permute(2, 0, 1, 3, 4, 5)
            num_steps = len(steps_first)
            last = self._run_snn(steps_first.flatten(0, 2), num_steps, maps)
            pooled.append(last.view(num_steps, -1, *last.shape[1:]).mean(dim=(0, 3, 4)))
        logits: Tensor = self.head(torch.cat(pooled, dim=1))
        return logits.view(*keys.shape[:2], -1)

    def normalise(self, keys: Tensor, residuals: Tensor, color: Color) -> tuple[Tensor, Tensor]:
        """Return the input of the two branches, `[B, N, 3, H, W]` and `[B, N, R, 3, H, W]`, in the network's dtype.

        Key frames become `(k / 255 - mean) / deviation`. Residuals become RGB differences `/ 255 / deviation`, without
        the mean, which cancels out in a difference.
        """
        self._check(keys, residuals, color)
        return self._normalise_keys(keys), self._normalise_residuals(residuals, color)

    def _run_snn(self, residuals: Tensor, num_steps: int, maps: list[Tensor]) -> Tensor:
        features: Tensor = self.snn.stem(residuals)
        for scale, stage in enumerate(self.snn.stages):
            if self.uses_activation_checkpointing and self.training:
                features = run_checkpointed(self._run_scale, stage, scale, features, num_steps, maps)
            else:
                features = self._run_scale(scale, features, num_steps, maps)
        return features

    def _run_scale(self, scale: int, features: Tensor, num_steps: int, maps: list[Tensor]) -> Tensor:
        features = self.snn.stages[scale](features, num_steps)
        if self.config.branches == "hybrid" and self.config.fusion_pools[scale]:
            features = self.fusions[scale](features, maps[scale])
        return features

    def _normalise_keys(self, keys: Tensor) -> Tensor:
        planes = keys.to(self.head.weight.dtype).unbind(dim=2)
        # Python numbers, not tensors of constants: they are exact in float64 too
        figures = zip(planes, self.pixel_mean, self.pixel_deviation, strict=True)
        rows = [plane.div(255).sub(mean).div(deviation) for plane, mean, deviation in figures]
        return torch.stack(rows, dim=-1).movedim(-1, 2)

    def _normalise_residuals(self, residuals: Tensor, color: Color) -> Tensor:
        # in memory steps come first and channels last, as the SNN takes them: folding copies nothing
        planes = residuals.to(self.head.weight.dtype).permute(2, 0, 1, 3, 4, 5).unbind(dim=3)
        rgb = [_mix(planes, weights) for weights in YCC_TO_RGB] if color == "ycc" else planes
        rows = [plane.div(255 * deviation) for plane, deviation in zip(rgb, self.pixel_deviation, strict=True)]
        return torch.stack(rows, dim=-1).permute(1, 2, 0, 5, 3, 4)

    def _check(self, keys: Tensor, residuals: Tensor, color: Color) -> None:
        if color not in COLORS:
            raise SettingError(f"color {color!r}", f"choose from {', '.join(COLORS)}")
        if keys.dim() != 5 or keys.shape[2] != 3 or not (keys.dtype == torch.uint8 or keys.is_floating_point()):
            raise SettingError(
                f"keys are {_describe(keys)}, needed is uint8 or float [B, N, 3, H, W]", "see respike.types.Batch"
            )
        if self.config.uses_residuals and (
            residuals.dim() != 6
            or (*residuals.shape[:2], *residuals.shape[3:]) != tuple(keys.shape)
            or residuals.dtype in (torch.uint8, torch.bool)
        ):
            raise SettingError(
                f"residuals are {_describe(residuals)} beside keys {_describe(keys)}, "
                "needed is int16 or float [B, N, R, 3, H, W] with the keys' B, N, H and W",
                "see respike.types.Batch",
            )
        if self.config.uses_residuals and residuals.shape[2] == 0:
            raise SettingError("the clips hold no residuals (a stride of 1)", "prepare them with a stride of 2 or more")
        check_image_size(*keys.shape[3:])


def _mix(planes: tuple[Tensor, ...], weights: tuple[float, ...]) -> Tensor:
    luma_weight, *chroma_weights = weights
    mixed = planes[0] * luma_weight
    for plane, weight in zip(planes[1:], chroma_weights, strict=True):
        if weight:
            mixed = torch.add(mixed, plane, alpha=weight)
    return mixed


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
