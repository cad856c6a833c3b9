"""Fusion: a transformer block in which the SNN's features attend to those of the key frame, at one scale.

Queries come from the SNN map, keys and values from the ANN map of the same scale. Each of the L pixels of the pooled
maps is a token. The ANN map is the same at all R steps of a group, so its keys and values are computed once a group,
and one attention serves all steps.

Source: ReSpike (arXiv 2409.01564), section on cross-attention fusion; the block is a latent-diffusion transformer's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from respike.common.errors import SettingError
from respike.zoo.nn.linear import OneDnnLinear, OneDnnPointwiseConv

FusionKind = Literal["faithful", "additive"]
FUSION_KINDS: tuple[FusionKind, ...] = get_args(FusionKind)
HEAD_WIDTH = 32
NUM_NORM_GROUPS = 32


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention as matrix products and softmax in this block, so that a FLOP counter sees them."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


class Attention(nn.Module):
    """Multi-head attention with heads of 32 dimensions; only the output has a bias."""

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        self.query = OneDnnLinear(channels, channels, bias=False)
        self.key = OneDnnLinear(context_channels, channels, bias=False)
        self.value = OneDnnLinear(context_channels, channels, bias=False)
        self.out = OneDnnLinear(channels, channels)
        self.num_heads = channels // HEAD_WIDTH

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Let `tokens` `[R·G, L, C]`, folded step by step, attend to `context` `[G, M, C']`; return the tokens' shape.

        The tokens of a group's R steps share its context, so they form one row of R·L queries.
        """
        num_groups, num_keys, _ = context.shape
        num_tokens = tokens.shape[1]
        # [R·G, L, heads·32] → [G, heads, R·L, 32]
        query = self.query(tokens).view(-1, num_groups, num_tokens, self.num_heads, HEAD_WIDTH)
        query = query.permute(1, 3, 0, 2, 4).flatten(2, 3)
        key = self.key(context).view(num_groups, num_keys, self.num_heads, HEAD_WIDTH).transpose(1, 2)
        value = self.value(context).view(num_groups, num_keys, self.num_heads, HEAD_WIDTH).transpose(1, 2)
        answer = F.scaled_dot_product_attention(query, key, value)
        answer = answer.view(num_groups, self.num_heads, -1, num_tokens, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.out(answer.reshape(tokens.shape))
        return mixed


class GEGLU(nn.Module):
    """A feed-forward of expansion 4: one linear layer gives value and gate, and the value is scaled by GELU(gate)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = OneDnnLinear(channels, 8 * channels)
        self.contract = OneDnnLinear(4 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map `[R·G, L, C]` to the same shape."""
        value, gate = self.expand(tokens).chunk(2, dim=-1)
        mapped: Tensor = self.contract(value * F.gelu(gate))
        return mapped


class Fusion(nn.Module):
    """Fuse an SNN map with the key frame's ANN map at one scale.

    `pool` is the factor by which both maps are averaged first, 1 for not at all. The result is upsampled bilinearly.
    `kind` decides what it does to the fine SNN map:

    - `faithful`: the fused map replaces it. Detail that the pooling removed is lost, as in the published network.
    - `additive`: the change is upsampled and added to it. Fine detail is kept, and an untrained fusion changes nothing.

    Without pooling both kinds are the same.
    """

    def __init__(self, channels: int, context_channels: int, *, pool: int = 1, kind: FusionKind = "faithful") -> None:
        super().__init__()
        if kind not in FUSION_KINDS:
            raise SettingError(f"fusion {kind!r}", f"choose from {', '.join(FUSION_KINDS)}")
        if channels % HEAD_WIDTH or channels % NUM_NORM_GROUPS:
            raise SettingError(
                f"fusion of {channels} channels, allowed are multiples of {HEAD_WIDTH}",
                "choose another width of the SNN",
            )
        self.pool = pool
        self.kind = kind
        self.group_norm = nn.GroupNorm(NUM_NORM_GROUPS, channels, eps=1e-6)
        self.project_in = OneDnnPointwiseConv(channels, channels)
        self.self_norm = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, channels)
        self.cross_norm = nn.LayerNorm(channels)
        self.cross_attention = Attention(channels, context_channels)
        self.feed_norm = nn.LayerNorm(channels)
        self.feed_forward = GEGLU(channels)
        self.project_out = OneDnnPointwiseConv(channels, channels)
        # an untrained fusion changes nothing: training starts from the two branches
        for parameter in self.project_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, key_map: Tensor) -> Tensor:
        """Fuse an SNN map `[R·G, C, H, W]` with an ANN map `[G, C', H, W]`; the result has the SNN map's shape."""
        if self.pool == 1:
            return self.fuse(features, key_map)
        coarse, coarse_key_map = F.avg_pool2d(features, self.pool), F.avg_pool2d(key_map, self.pool)
        if self.kind == "additive":
            return features + self._upsample(self.change(coarse, coarse_key_map))
        return self._upsample(self.fuse(coarse, coarse_key_map))

    def fuse(self, features: Tensor, key_map: Tensor) -> Tensor:
        """Fuse maps that are pooled already, `[R·G, C, h, w]` and `[G, C', h, w]`: `features` plus their `change`."""
        return self.change(features, key_map) + features

    def change(self, features: Tensor, key_map: Tensor) -> Tensor:
        """Return what `fuse` adds to `features`, in the same shape: a transformer block whose tokens are pixels."""
        # one pixel one token; with channels last in memory these are views
        tokens = self.project_in(self.group_norm(features)).flatten(2).transpose(1, 2)
        context = key_map.flatten(2).transpose(1, 2)
        normed = self.self_norm(tokens)
        tokens = tokens + self.self_attention(normed, normed)
        tokens = tokens + self.cross_attention(self.cross_norm(tokens), context)
        tokens = tokens + self.feed_forward(self.feed_norm(tokens))
        change: Tensor = self.project_out(tokens.transpose(1, 2).reshape(features.shape))
        return change

    def _upsample(self, coarse: Tensor) -> Tensor:
        return F.interpolate(coarse, scale_factor=float(self.pool), mode="bilinear", align_corners=False)
