"""Explanation: which tokens of a key frame attention uses, where neurons fire, what each group of a clip says.

Shapes: N groups of a clip, R residuals of a group, K classes, C channels, h × w the size of a map or a token grid.
"""

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
from respike.zoo.device import device_of
from respike.zoo.nn.fusion import HEAD_WIDTH, Attention, Fusion
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.modes import eval_mode
from respike.zoo.nn.respike import ReSpike

Array = NDArray[np.float32]
# sides in pixels of the regions that `strongest_spot` compares: for large images, and for those below 128 pixels
_REGION_PIXELS, _SMALL_REGION_PIXELS, _LARGE_IMAGE_PIXELS = 16, 8, 128


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A pixel of a residual: the group, the residual in it (`step`), row and column, all from 0."""

    group: int
    step: int
    row: int
    column: int


@dataclass(frozen=True, kw_only=True)
class ScaleAttention:
    """The attention of the spot's token to the key frame at one scale, 0 the finest.

    `weights` `[heads, h, w]` sum to 1 over each head's h · w tokens. `token` is the (row, column) of the spot's token.
    """

    scale: int
    weights: Array
    token: tuple[int, int]

    def top(self, most: int) -> list[tuple[int, int, float]]:
        """Return (row, column, weight) of the tokens with the largest mean weight over heads, largest first."""
        means = self.weights.mean(axis=0)
        order = np.argsort(-means, axis=None, kind="stable")[:most]
        places = zip(*np.unravel_index(order, means.shape), strict=True)
        return [(int(row), int(column), float(means[row, column])) for row, column in places]


@dataclass(frozen=True, kw_only=True)
class LayerSpikes:
    """When and where one layer of neurons fires.

    - `rate_map` `[h, w]`: the share of channels and steps that fire at each place.
    - `step_rates` `[N, R]`: the share of neurons that fire at each step.
    - `raster` bool `[C, N · R]`: the spikes of all channels at the spot, step by step.
    """

    name: str
    rate_map: Array
    step_rates: Array
    raster: NDArray[np.bool_]

    @property
    def rate(self) -> float:
        """The share of neurons and steps that fire, from 0 to 1."""
        return float(self.step_rates.mean())


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a network does with one clip.

    - `attention`: the fused scales, empty without fusion; `layers`: the spiking layers, empty without an SNN branch.
    - `evidence` `[N, K]`: the probabilities from each group alone.
    - `verdict` `[N, K]`: the probabilities from all groups up to this one; the last row is the network's answer.
    """

    spot: Spot
    attention: tuple[ScaleAttention, ...]
    layers: tuple[LayerSpikes, ...]
    evidence: Array
    verdict: Array


def explain(model: ReSpike, batch: Batch, spot: Spot | None = None) -> Explanation:
    """Run `model` in evaluation mode on `batch`, which holds one clip; return what it does at `spot`.

    Without a spot it is the middle of the region with the strongest events, see `strongest_spot`. Afterwards each layer
    has its mode from before. Raises SettingError where the batch holds more clips or the spot is outside the clip.
    """
    if len(batch) != 1:
        raise SettingError(f"an explanation is of 1 clip, got {len(batch)}", "take one clip at a time")
    spot = spot or strongest_spot(batch)
    _check_spot(spot, batch)
    moved = batch.to(device_of(model))
    with eval_mode(model), _activity_watched(model, spot, tuple(batch.residuals.shape[1:])) as seen:
        logits = model.group_logits(moved.keys, moved.residuals, moved.color)[0].double()
    counts = torch.arange(1, len(logits) + 1, device=logits.device)[:, None]
    return Explanation(
        spot=spot,
        attention=tuple(seen.attention),
        layers=tuple(seen.layers),
        evidence=_array(logits.softmax(dim=1)),
        verdict=_array((logits.cumsum(dim=0) / counts).softmax(dim=1)),
    )


def strongest_spot(batch: Batch, *, group: int | None = None, step: int | None = None) -> Spot:
    """Return the middle of the region whose brightness changes most in the first clip of `batch`.

    Regions have 16 × 16 pixels, 8 × 8 in images below 128 pixels. `group` and `step` limit the search to one of each.
    """
    residuals = batch.residuals[0].float()
    luma = residuals[:, :, 0] if batch.color == "ycc" else residuals.mean(dim=2)
    side = _REGION_PIXELS if luma.shape[-1] >= _LARGE_IMAGE_PIXELS else _SMALL_REGION_PIXELS
    strength = F.avg_pool2d(luma.abs(), side)
    allowed = torch.zeros(strength.shape[:2], dtype=torch.bool)
    allowed[slice(None) if group is None else group, slice(None) if step is None else step] = True
    strength = strength.masked_fill(~allowed[:, :, None, None].to(strength.device), -1)
    found = np.unravel_index(int(strength.argmax()), tuple(strength.shape))
    best_group, best_step, row, column = (int(place) for place in found)
    return Spot(group=best_group, step=best_step, row=row * side + side // 2, column=column * side + side // 2)


def _check_spot(spot: Spot, batch: Batch) -> None:
    num_groups, num_steps, _, height, width = batch.residuals.shape[1:]
    bounds = {"group": num_groups, "step": num_steps, "row": height, "column": width}
    for name, count in bounds.items():
        if not 0 <= (given := getattr(spot, name)) < count:
            raise SettingError(f"the spot's {name} is {given}", f"allowed are 0 to {count - 1}")


@dataclass
class _Activity:
    """What the hooks see of attention and spikes."""

    attention: list[ScaleAttention] = field(default_factory=list)
    layers: list[LayerSpikes] = field(default_factory=list)


@contextmanager
def _activity_watched(model: ReSpike, spot: Spot, shape: tuple[int, ...]) -> Iterator[_Activity]:
    """Watch neurons and cross-attention; `shape` is that of the residuals, `[N, R, 3, H, W]`."""
    seen, handles = _Activity(), []
    for name, module in model.named_modules():
        if isinstance(module, LIF):

            def note_spikes(_: nn.Module, __: object, spikes: Tensor, name: str = name) -> None:
                seen.layers.append(_summarise_spikes(name, spikes, spot, shape))

            handles.append(module.register_forward_hook(note_spikes))
        elif isinstance(module, Fusion):
            scale = int(name.rpartition(".")[2])

            def note_attention(attention: nn.Module, args: tuple[Tensor, ...], scale: int = scale) -> None:
                assert isinstance(attention, Attention)
                tokens, context = args
                seen.attention.append(_attention_of_spot(scale, attention, tokens, context, spot, shape))

            handles.append(module.cross_attention.register_forward_pre_hook(note_attention))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _attention_of_spot(
    scale: int, attention: Attention, tokens: Tensor, context: Tensor, spot: Spot, shape: tuple[int, ...]
) -> ScaleAttention:
    """Compute the attention of the spot's token to its key frame: `tokens` `[R · N, L, C]`, `context` `[N, L, C']`."""
    num_groups, _, _, height, width = shape
    # tokens cover the frame evenly, so their number and the frame's sides give the grid
    grid_height = round((tokens.shape[1] * height / width) ** 0.5)
    grid_width = tokens.shape[1] // grid_height
    row, column = spot.row * grid_height // height, spot.column * grid_width // width
    token = tokens[spot.step * num_groups + spot.group, row * grid_width + column]
    query = attention.query(token).view(attention.num_heads, 1, HEAD_WIDTH)
    keys = attention.key(context[spot.group]).view(-1, attention.num_heads, HEAD_WIDTH)
    products = (query * keys.transpose(0, 1)).sum(dim=2) / HEAD_WIDTH**0.5
    weights = products.softmax(dim=1).view(attention.num_heads, grid_height, grid_width)
    return ScaleAttention(scale=scale, weights=_array(weights), token=(row, column))


def _summarise_spikes(name: str, spikes: Tensor, spot: Spot, shape: tuple[int, ...]) -> LayerSpikes:
    """Reduce the spikes `[R · N, C, h, w]` of a layer to a map, a rate for each step, and a raster at the spot."""
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
