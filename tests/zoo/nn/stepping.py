"""ReSpike as a textbook would run it: one group, one time step, one layer after the other, with the model's weights.

It shares no code with the network's forward pass: batch norm, neurons and attention are written out, for evaluation.
"""

import torch
from torch import nn
from torch.nn import functional as F


def batch_norm(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    shape = (1, -1, 1, 1)
    centred = x - norm.running_mean.view(shape)
    return centred / torch.sqrt(norm.running_var.view(shape) + norm.eps) * norm.weight.view(shape) + norm.bias.view(
        shape
    )


class Neurons:
    """The membranes of one layer, from step to step."""

    def __init__(self, layer: nn.Module) -> None:
        self.membrane = 0.0
        settings = layer.settings
        self.threshold, self.is_soft = settings.threshold, settings.reset == "soft"
        self.rate = 1 / (1 + torch.exp(-layer.rate_logit)) if settings.learns_tau else 1 / settings.tau

    def __call__(self, current: torch.Tensor) -> torch.Tensor:
        potential = self.membrane + (current - self.membrane) * self.rate
        fires = potential >= self.threshold
        self.membrane = torch.where(fires, potential - self.threshold if self.is_soft else 0.0, potential)
        return fires.to(current.dtype)


def attention(layer: nn.Module, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    answers = []
    for head in range(tokens.shape[-1] // 32):
        rows = slice(32 * head, 32 * head + 32)
        query = tokens @ layer.query.weight[rows].T
        key, value = context @ layer.key.weight[rows].T, context @ layer.value.weight[rows].T
        answers.append(torch.softmax(query @ key.T / 32**0.5, dim=-1) @ value)
    return torch.cat(answers, dim=-1) @ layer.out.weight.T + layer.out.bias


def fuse(fusion: nn.Module, x: torch.Tensor, key_map: torch.Tensor) -> torch.Tensor:
    fine, fine_map = x.shape[-2:], x
    if fusion.pool > 1:
        x, key_map = F.avg_pool2d(x, fusion.pool), F.avg_pool2d(key_map, fusion.pool)
    channels, height, width = x.shape[1:]
    norm = fusion.group_norm
    normed = F.group_norm(x, 32, norm.weight, norm.bias, 1e-6)
    weight = fusion.project_in.weight[:, :, 0, 0]
    tokens = normed[0].reshape(channels, -1).T @ weight.T + fusion.project_in.bias
    context = key_map[0].reshape(key_map.shape[1], -1).T

    def layer_norm(norm: nn.LayerNorm, tokens: torch.Tensor) -> torch.Tensor:
        spread = torch.sqrt(tokens.var(dim=-1, unbiased=False, keepdim=True) + 1e-5)
        return (tokens - tokens.mean(dim=-1, keepdim=True)) / spread * norm.weight + norm.bias

    asking = layer_norm(fusion.self_norm, tokens)
    tokens = tokens + attention(fusion.self_attention, asking, asking)
    tokens = tokens + attention(fusion.cross_attention, layer_norm(fusion.cross_norm, tokens), context)
    feed = fusion.feed_forward
    wide = layer_norm(fusion.feed_norm, tokens) @ feed.expand.weight.T + feed.expand.bias
    value, gate = wide[:, : 4 * channels], wide[:, 4 * channels :]
    gelu = gate * (1 + torch.erf(gate / 2**0.5)) / 2
    tokens = tokens + (value * gelu) @ feed.contract.weight.T + feed.contract.bias
    change = tokens @ fusion.project_out.weight[:, :, 0, 0].T + fusion.project_out.bias
    change = change.T.reshape(1, channels, height, width)
    if fusion.kind == "additive" and fusion.pool > 1:
        return fine_map + F.interpolate(change, size=fine, mode="bilinear", align_corners=False)
    fused = x + change
    return F.interpolate(fused, size=fine, mode="bilinear", align_corners=False) if fusion.pool > 1 else fused


def block_step(block: nn.Module, neurons: tuple[Neurons, Neurons], x: torch.Tensor) -> torch.Tensor:
    stride = block.conv1.stride[0]
    inner = batch_norm(block.norm1, F.conv2d(neurons[0](x), block.conv1.weight, stride=stride, padding=1))
    inner = batch_norm(block.norm2, F.conv2d(neurons[1](inner), block.conv2.weight, padding=1))
    if stride == 1:
        return inner + x
    return inner + batch_norm(block.shortcut.norm, F.conv2d(F.avg_pool2d(x, 2), block.shortcut.conv.weight))


def group_logits(model: nn.Module, key: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
    """Logits `[K]` of one group from normalised input: `key` `[3, H, W]`, `residuals` `[R, 3, H, W]`."""
    maps = model.ann(key[None])
    neurons = {
        block: (Neurons(block.lif1), Neurons(block.lif2)) for stage in model.snn.stages for block in stage.blocks
    }
    last = []
    for residual in residuals:
        x = batch_norm(model.snn.stem.norm, F.conv2d(residual[None], model.snn.stem.conv.weight, stride=2, padding=1))
        for scale, stage in enumerate(model.snn.stages):
            for block in stage.blocks:
                x = block_step(block, neurons[block], x)
            if model.config.fusion_pools[scale]:
                x = fuse(model.fusions[scale], x, maps[scale])
        last.append(x)
    features = torch.cat([maps[-1], torch.stack(last).mean(dim=0)], dim=1).mean(dim=(2, 3))[0]
    return model.head.weight @ features + model.head.bias
