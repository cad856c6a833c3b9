"""ReSpike computed step by step, as SNNs commonly are: a loop over time that calls one module after the other.

This is the peer of `bench_model.py`. Neurons keep their membrane potential between steps and are reset between clips.
Fusion computes attention at each step, including keys and values of the ANN features, as matrix products and softmax.
Weights and their names are those of `respike.zoo`, so both networks give the same logits.
"""

import math

import torch
from respike.zoo.nn.backbone import key_maps
from respike.zoo.nn.linear import OneDnnLinear, OneDnnPointwiseConv
from respike.zoo.nn.respike import ReSpike
from torch import Tensor, nn
from torch.nn import functional as F

TAU, HEAD_WIDTH = 4 / 3, 32


class ArctanSpike(torch.autograd.Function):
    """A step function; its gradient is the derivative of an arctangent."""

    @staticmethod
    def forward(ctx, overshoot: Tensor) -> Tensor:
        """Return 1 where the potential reaches the threshold, else 0."""
        ctx.save_for_backward(overshoot)
        return (overshoot >= 0).to(overshoot)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """Return the surrogate gradient, α = 2."""
        (overshoot,) = ctx.saved_tensors
        return grad / (1 + (math.pi * overshoot) ** 2)


class SteppingLIF(nn.Module):
    """LIF neurons that keep their membrane potential between calls; no gradient flows through the reset."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | float = 0.0

    def forward(self, current: Tensor) -> Tensor:
        """Compute one step."""
        potential = self.membrane + (current - self.membrane) / TAU
        spikes = ArctanSpike.apply(potential - 1)
        self.membrane = potential * (1 - spikes.detach())
        return spikes


class SteppingBlock(nn.Module):
    """A residual block that computes one step at a time, with the layers of `block`."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv1, self.norm1 = block.conv1, block.norm1
        self.conv2, self.norm2 = block.conv2, block.norm2
        self.shortcut = block.shortcut
        self.lif1, self.lif2 = SteppingLIF(), SteppingLIF()

    def forward(self, features: Tensor) -> Tensor:
        """Compute one step."""
        inner = self.norm1(self.conv1(self.lif1(features)))
        return self.norm2(self.conv2(self.lif2(inner))) + self.shortcut(features)


class SteppingAttention(nn.Module):
    """Multi-head attention of one step, with the projections of `attention`."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = attention.query, attention.key, attention.value, attention.out

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Attend from `tokens` to `context`, both `[B, tokens, C]`."""
        query, key, value = (
            layer(rows).unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)
            for layer, rows in ((self.query, tokens), (self.key, context), (self.value, context))
        )
        weights = (query @ key.transpose(-2, -1) * HEAD_WIDTH**-0.5).softmax(dim=-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class SteppingFusion(nn.Module):
    """Fusion of one step, with the layers of `fusion`."""

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion
        self.self_attention = SteppingAttention(fusion.self_attention)
        self.cross_attention = SteppingAttention(fusion.cross_attention)

    def forward(self, features: Tensor, key_map: Tensor) -> Tensor:
        """Compute one step: pool, attend, upsample."""
        own, pool = self.fusion, self.fusion.pool
        if pool > 1:
            features, key_map = F.avg_pool2d(features, pool), F.avg_pool2d(key_map, pool)
        tokens = own.project_in(own.group_norm(features)).flatten(2).transpose(1, 2)
        context = key_map.flatten(2).transpose(1, 2)
        normed = own.self_norm(tokens)
        tokens = tokens + self.self_attention(normed, normed)
        tokens = tokens + self.cross_attention(own.cross_norm(tokens), context)
        tokens = tokens + own.feed_forward(own.feed_norm(tokens))
        fused = features + own.project_out(tokens.transpose(1, 2).reshape(features.shape))
        if pool > 1:
            fused = F.interpolate(fused, scale_factor=float(pool), mode="bilinear", align_corners=False)
        return fused


class NoFusion(nn.Module):
    """A scale without fusion."""

    def forward(self, features: Tensor, key_map: Tensor) -> Tensor:
        """Compute one step."""
        return features


class SteppingReSpike(nn.Module):
    """The network with the layers of `model`, which it shares. Groups are folded into the batch, steps are not.

    The linear layers and 1×1 convolutions of `model` are changed to those of torch.
    """

    def __init__(self, model: ReSpike) -> None:
        super().__init__()
        for module in model.modules():
            if isinstance(module, (OneDnnLinear, OneDnnPointwiseConv)):
                module.__class__ = nn.Linear if isinstance(module, OneDnnLinear) else nn.Conv2d
        self.model = model
        self.stages = nn.ModuleList(
            nn.Sequential(*(SteppingBlock(block) for block in stage.blocks)) for stage in model.snn.stages
        )
        self.fusions = nn.ModuleList(
            NoFusion() if isinstance(fusion, nn.Identity) else SteppingFusion(fusion) for fusion in model.fusions
        )

    def forward(self, keys: Tensor, residuals: Tensor, color: str) -> Tensor:
        """Classify clips like `ReSpike.forward`; return logits `[B, K]`."""
        keys, residuals = self.model.normalise(keys, residuals, color)
        for module in self.modules():
            if isinstance(module, SteppingLIF):
                module.membrane = 0.0
        maps = key_maps(self.model.ann, keys.flatten(0, 1))
        summed: Tensor | float = 0.0
        for step in residuals.flatten(0, 1).unbind(dim=1):
            features = self.model.snn.stem(step)
            for stage, fusion, key_map in zip(self.stages, self.fusions, maps, strict=True):
                features = fusion(stage(features), key_map)
            summed = summed + features
        pooled = torch.cat([maps[-1], summed / residuals.shape[2]], dim=1).mean(dim=(2, 3))
        return self.model.head(pooled).unflatten(0, keys.shape[:2]).mean(dim=1)
