"""Linear: torch's linear layer and 1×1 convolution, computed by oneDNN in float32 on a CPU.

torch computes such products by MKL, which reaches half of oneDNN's speed on AMD processors. It uses oneDNN for
convolutions, except 1×1 convolutions on a single thread. The sums have the same terms in another order. Everywhere
else, and where a network is traced, compiled or counted, both layers are torch's own.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

_HAS_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_OPERATOR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _HAS_ONEDNN else None


class OneDnnLinear(nn.Linear):
    """`nn.Linear`, faster on some CPUs."""

    def forward(self, rows: Tensor) -> Tensor:
        """Map `[..., C]` to `[..., C']`."""
        return linear(rows, self.weight, self.bias)


class OneDnnPointwiseConv(nn.Conv2d):
    """`nn.Conv2d` of kernel size 1, faster on some CPUs where channels are last in memory."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Map `[A, C, H, W]` to `[A, C', H, W]`."""
        if _goes_to_onednn(maps, self.weight) and maps.is_contiguous(memory_format=torch.channels_last):
            return linear(maps.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)
        return super().forward(maps)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `F.linear`; `weight` may also be that of a 1×1 convolution, `[C', C, 1, 1]`."""
    if not _goes_to_onednn(rows, weight):
        return F.linear(rows, weight.flatten(1), bias)
    mapped: Tensor = _Linear.apply(rows, weight, bias)
    return mapped


def _goes_to_onednn(rows: Tensor, weight: Tensor) -> bool:
    # compilers and exporters need operators that they know; asked first, so that they do not trace the rest
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return (
        _OPERATOR is not None
        and rows.device.type == weight.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and rows.numel() > 0
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        # an operation counter knows torch's usual operators only
        and _get_current_dispatch_mode() is None
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _multiply(rows, weight.flatten(1), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        grad_rows = _multiply(grad, weight.flatten(1).t()) if needs_rows else None
        flat = grad.reshape(-1, grad.shape[-1])
        grad_weight = None
        if needs_weight:
            grad_weight = _multiply(flat.t(), rows.reshape(-1, rows.shape[-1]).t()).view(weight.shape)
            # data-parallel training copies gradients whose memory order is not that of the weights
            if weight.stride()[:2] == grad_weight.stride()[:2]:
                grad_weight = grad_weight.as_strided(weight.shape, weight.stride())
        return grad_rows, grad_weight, flat.sum(0) if needs_bias else None


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows `[..., C]` times the transpose of `weight` `[C', C]`."""
    assert _OPERATOR is not None
    product: Tensor = _OPERATOR(rows, weight, bias, "none", [], "")
    return product
