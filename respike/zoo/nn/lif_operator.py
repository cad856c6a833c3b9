"""LIF operator: the plain neurons as one operator of torch's, which torch.compile takes whole.

Traced, their loops over blocks and steps would end the graph at every layer and be compiled for each layer anew.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.library import custom_op

if TYPE_CHECKING:
    from respike.zoo.nn.lif import LIFSettings


def integrate_and_fire(current: Tensor, rate: float | Tensor, num_steps: int, settings: "LIFSettings") -> Tensor:
    """Return the spikes of `current` `[num_steps · G, ...]`, which is dense; `rate` is 1 / τ, and gets a gradient."""
    learned = rate if isinstance(rate, Tensor) else None
    kinds = settings.tau, settings.threshold, settings.surrogate, settings.surrogate_alpha, settings.reset
    spikes: Tensor = _forward(current, learned, num_steps, *kinds)
    return spikes


@custom_op("respike::plain_lif", mutates_args=())
def _forward(
    current: Tensor,
    learned: Tensor | None,
    num_steps: int,
    tau: float,
    threshold: float,
    surrogate: str,
    alpha: float,
    reset: str,
) -> Tensor:
    from respike.zoo.nn import lif  # which imports this module

    rate = 1 / tau if learned is None else learned
    return lif.fire(current, rate, num_steps, _settings(learned, tau, threshold, surrogate, alpha, reset))


@custom_op("respike::plain_lif_backward", mutates_args=())
def _backward(
    grad_spikes: Tensor,
    current: Tensor,
    spikes: Tensor,
    learned: Tensor | None,
    num_steps: int,
    tau: float,
    threshold: float,
    surrogate: str,
    alpha: float,
    reset: str,
) -> tuple[Tensor, Tensor]:
    from respike.zoo.nn import lif

    rate = 1 / tau if learned is None else learned
    settings = _settings(learned, tau, threshold, surrogate, alpha, reset)
    grad, grad_rate = lif.fire_back(grad_spikes, current, spikes, rate, num_steps, settings)
    return grad, current.new_zeros(()) if grad_rate is None else grad_rate


def _settings(
    learned: Tensor | None, tau: float, threshold: float, surrogate: str, alpha: float, reset: Any
) -> "LIFSettings":
    """The neurons' settings again, which an operator takes one by one."""
    from respike.zoo.nn.lif import LIFSettings

    return LIFSettings(
        tau=tau,
        learns_tau=learned is not None,
        threshold=threshold,
        surrogate=surrogate,
        surrogate_alpha=alpha,
        reset=reset,
    )


@_forward.register_fake
def _(current: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(current)


@_backward.register_fake
def _(grad_spikes: Tensor, current: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(current), current.new_empty(())


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    current, learned, *ctx.settings = inputs
    ctx.save_for_backward(current, output, learned)


def _go_back(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor | None, ...]:
    current, spikes, learned = ctx.saved_tensors
    grad, grad_rate = _backward(grad_spikes, current, spikes, learned, *ctx.settings)
    return grad, None if learned is None else grad_rate, *(None,) * len(ctx.settings)


_forward.register_autograd(_go_back, setup_context=_keep)
