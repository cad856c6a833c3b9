"""Explanation: attention, spikes and evidence of one clip."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from respike.common.errors import SettingError
from respike.types import Batch
from respike.zoo.nn.fusion import HEAD_WIDTH, Attention, Fusion
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.respike import ReSpike

Array = NDArray[np.float32]
# pixels a side of the regions among which the one with the most events is chosen
_REGION, _SMALL_REGION, _LARGE_IMAGE = 16, 8, 128


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A place in a residual: of which group, which residual in it (from 0), and the pixel (row, column)."""

    group: int
    step: int
    row: int
    column: int


@dataclass(frozen=True, kw_only=True)
class ScaleAttention:
    """What the spot's token attends to in the key frame at one scale, 0 the finest.

    `weights` `[heads, h, w]` sum to 1 over each head's h · w tokens; `token` is the asking one's (row, column).
    """

    scale: int
    weights: Array
    token: tuple[int, int]

    def top(self, most: int) -> list[tuple[int, int, float]]:
        """The (row, column, weight) of the tokens with the largest weight, a mean over heads, the largest first."""
        means = self.weights.mean(axis=0)
        order = np.argsort(-means, axis=None, kind="stable")[:most]
        places = zip(*np.unravel_index(order, means.shape), strict=True)
        return [(int(row), int(column), float(means[row, column])) for row, column in places]


@dataclass(frozen=True, kw_only=True)
class LayerSpikes:
    """When and where one layer of neurons fires.

    `rate_map` `[h, w]` is the share of channels and steps that fire at each place, `step_rates` `[N, R]` the share of
    neurons at each step, `raster` bool `[C, N · R]` the spikes of all channels at the spot, step by step.
    """

    name: str
    rate_map: Array
    step_rates: Array
    raster: NDArray[np.bool_]

    @property
    def rate(self) -> float:
        """The share of neurons and steps that fire, 0 to 1."""
        return float(self.step_rates.mean())


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What was seen in one clip.

    `attention` holds the fused scales, none where nothing is fused; `layers` the spiking layers, none without a spiking
    branch. `evidence` `[N, K]` are the probabilities that each group alone gives, `verdict` `[N, K]` those of all
    groups up to it; its last row is the network's answer.
    """

    spot: Spot
    attention: tuple[ScaleAttention, ...]
    layers: tuple[LayerSpikes, ...]
    evidence: Array
    verdict: Array


def explain(model: ReSpike, batch: Batch, spot: Spot | None = None) -> Explanation:
    """Run `model`, in evaluation mode, on `batch`, which holds one clip, and tell what it does about `spot`.

    Without a spot it is the middle of the region with the strongest events; see `strongest_spot`. The network is left
    in the mode it was in. Raises SettingError where the batch holds more clips or the spot lies outside it.
    """
    if len(batch) != 1:
        raise SettingError(f"an explanation is of 1 clip, got {len(batch)}", "take one clip at a time")
    spot = spot or strongest_spot(batch)
    _check_spot(spot, batch)
    moved = batch.to(next(model.parameters()).device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _watched(model, spot, tuple(batch.residuals.shape[1:])) as seen:
            logits = model.group_logits(moved.keys, moved.residuals, moved.color)[0].double()
    finally:
        model.train(was_training)
    counts = torch.arange(1, len(logits) + 1, device=logits.device)[:, None]
    return Explanation(
        spot=spot,
        attention=tuple(seen.attention),
        layers=tuple(seen.layers),
        evidence=_array(logits.softmax(dim=1)),
        verdict=_array((logits.cumsum(dim=0) / counts).softmax(dim=1)),
    )


def strongest_spot(batch: Batch, *, group: int | None = None, step: int | None = None) -> Spot:
    """The middle of the region of 16 × 16 pixels (of images below 128: 8 × 8) whose brightness changes most.

    `group` and `step` narrow the search to one of each. The first clip of `batch` is searched.
    """
    residuals = batch.residuals[0].float()
    luma = residuals[:, :, 0] if batch.color == "ycc" else residuals.mean(dim=2)
    region = _REGION if luma.shape[-1] >= _LARGE_IMAGE else _SMALL_REGION
    strength = F.avg_pool2d(luma.abs(), region)
    allowed = torch.zeros(strength.shape[:2], dtype=torch.bool)
    allowed[slice(None) if group is None else group, slice(None) if step is None else step] = True
    strength = strength.masked_fill(~allowed[:, :, None, None].to(strength.device), -1)
    found = np.unravel_index(int(strength.argmax()), tuple(strength.shape))
    best_group, best_step, row, column = (int(place) for place in found)
    middle = region // 2
    return Spot(group=best_group, step=best_step, row=row * region + middle, column=column * region + middle)


def _check_spot(spot: Spot, batch: Batch) -> None:
    num_groups, num_steps, _, height, width = batch.residuals.shape[1:]
    bounds = {"group": num_groups, "step": num_steps, "row": height, "column": width}
    for name, count in bounds.items():
        if not 0 <= (given := getattr(spot, name)) < count:
            raise SettingError(f"the spot's {name} is {given}", f"allowed are 0 to {count - 1}")


@dataclass
class _Seen:
    attention: list[ScaleAttention] = field(default_factory=list)
    layers: list[LayerSpikes] = field(default_factory=list)


@contextmanager
def _watched(model: ReSpike, spot: Spot, shape: tuple[int, ...]) -> Iterator[_Seen]:
    """Gather what passes through neurons and cross-attention; `shape` is the residuals', `[N, R, 3, H, W]`."""
    seen, handles = _Seen(), []
    for name, module in model.named_modules():
        if isinstance(module, LIF):

            def keep(_: nn.Module, __: object, spikes: Tensor, name: str = name) -> None:
                seen.layers.append(_summarise(name, spikes, spot, shape))

            handles.append(module.register_forward_hook(keep))
        elif isinstance(module, Fusion):
            scale = int(name.rpartition(".")[2])

            def ask(attention: nn.Module, args: tuple[Tensor, ...], scale: int = scale) -> None:
                assert isinstance(attention, Attention)
                tokens, context = args
                seen.attention.append(_ask(scale, attention, tokens, context, spot, shape))

            handles.append(module.cross_attention.register_forward_pre_hook(ask))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _ask(
    scale: int, attention: Attention, tokens: Tensor, context: Tensor, spot: Spot, shape: tuple[int, ...]
) -> ScaleAttention:
    """What the spot's token, of `tokens` `[R · N, L, C]`, attends to among those of its key frame, `[N, L, C']`."""
    num_groups, _, _, height, width = shape
    # tokens cover the frame evenly, so that their number and the frame's sides give the grid's
    grid_height = round((tokens.shape[1] * height / width) ** 0.5)
    grid_width = tokens.shape[1] // grid_height
    row, column = spot.row * grid_height // height, spot.column * grid_width // width
    asking = tokens[spot.step * num_groups + spot.group, row * grid_width + column]
    query = attention.query(asking).view(attention.num_heads, 1, HEAD_WIDTH)
    keys = attention.key(context[spot.group]).view(-1, attention.num_heads, HEAD_WIDTH)
    products = (query * keys.transpose(0, 1)).sum(dim=2) / HEAD_WIDTH**0.5
    weights = products.softmax(dim=1).view(attention.num_heads, grid_height, grid_width)
    return ScaleAttention(scale=scale, weights=_array(weights), token=(row, column))


def _summarise(name: str, spikes: Tensor, spot: Spot, shape: tuple[int, ...]) -> LayerSpikes:
    """Bring the spikes `[R · N, C, h, w]` of a layer down to a map, a rate a step and the raster at the spot."""
    num_groups, num_steps, _, height, width = shape
    by_step = spikes.view(num_steps, num_groups, *spikes.shape[1:])
    row, column = spot.row * spikes.shape[2] // height, spot.column * spikes.shape[3] // width
    return LayerSpikes(
        name=name,
        rate_map=_array(spikes.mean(dim=(0, 1))),
        step_rates=_array(by_step.mean(dim=(2, 3, 4)).transpose(0, 1)),
        # [R, N, C] → [C, N · R]
        raster=(by_step[..., row, column] > 0).permute(2, 1, 0).flatten(1).cpu().numpy(),
    )


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().numpy()
    return array
