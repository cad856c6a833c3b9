"""LIF: the leaky integrate-and-fire neuron, all time steps in one call, with a backward pass of its own.

    potential   h[t] = v[t-1] + (x[t] - v[t-1]) / τ        v starts at 0
    spike       s[t] = 1 where h[t] ≥ threshold, else 0
    reset       v[t] = h[t] · (1 - s[t])                    hard, to 0

Time is folded into the batch, step after step: row t·G + g holds step t of group g. Only this module tells the steps
apart; every other layer takes the folded rows as an ordinary batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from respike.errors import SettingError
from respike.registry import Registry

# (gradient of the spikes, u = h - threshold, α) → gradient of h; u is its own to overwrite
Surrogate = Callable[[Tensor, Tensor, float], Tensor]
SURROGATES: Registry[Surrogate] = Registry("surrogate gradient")


@SURROGATES.register("arctan")
def arctan_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike as if the step were an arctangent: times (α/2) / (1 + (π α u / 2)²).

    `overshoot` is u = h - threshold. Source: Fang et al., ICCV 2021, which takes α = 2.
    """
    # (2/α) · (1 + (π α u / 2)²), so that one division does all
    denominator = overshoot.square_().mul_(math.pi**2 * alpha / 2).add_(2 / alpha)
    return torch.div(grad_spikes, denominator, out=denominator)


@SURROGATES.register("rectangle")
def rectangle_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike within 1/α of the threshold, times α/2; block it elsewhere."""
    return grad_spikes * (overshoot.abs() < 1 / alpha) * (alpha / 2)


@dataclass(frozen=True, kw_only=True)
class LIFSettings:
    """What makes a LIF neuron.

    `tau` is the membrane's time constant in steps (≥ 1; at 1 nothing is kept from step to step), `threshold` the
    potential that fires (> 0), `surrogate` one of SURROGATES, `surrogate_alpha` its sharpness α (> 0).
    """

    tau: float = 4 / 3
    threshold: float = 1.0
    surrogate: str = "arctan"
    surrogate_alpha: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.tau < math.inf:
            raise SettingError(f"tau is {self.tau}, allowed are values from 1", "the published network takes 4/3")
        for name in ("threshold", "surrogate_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}, allowed are values above 0", "take the default")
        SURROGATES.get(self.surrogate)


class LIF(nn.Module):
    """A layer of LIF neurons, one for each element of a row. It has no parameters and keeps nothing between calls."""

    def __init__(self, settings: LIFSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, current: Tensor, num_steps: int) -> Tensor:
        """Run `num_steps` steps on `current` `[num_steps · G, ...]` and return the spikes, 0 or 1, in the same shape.

        The membrane starts at 0 in each of the G groups. The gradient goes through the potentials and the surrogate,
        not through the reset.
        """
        spikes: Tensor = _IntegrateAndFire.apply(current, num_steps, self.settings)
        return spikes

    def extra_repr(self) -> str:
        """What `print(model)` shows of the settings."""
        return f"tau={self.settings.tau:.4g}, threshold={self.settings.threshold:g}, {self.settings.surrogate}"


def integrate(current: Tensor, num_steps: int, settings: LIFSettings) -> tuple[Tensor, Tensor]:
    """Return spikes and potentials (before the reset), each of the shape of `current` `[num_steps · G, ...]`.

    No gradient passes; for that there is `LIF`.
    """
    potentials, spikes = torch.empty_like(current), torch.empty_like(current)
    membrane = None
    steps = zip(*(tensor.chunk(num_steps) for tensor in (current, potentials, spikes)), strict=True)
    for step_current, potential, fired in steps:
        if membrane is None:
            torch.mul(step_current, 1 / settings.tau, out=potential)
        else:
            torch.lerp(membrane, step_current, 1 / settings.tau, out=potential)
        torch.ge(potential, settings.threshold, out=fired)
        membrane = torch.addcmul(potential, potential, fired, value=-1)
    return spikes, potentials


class _IntegrateAndFire(torch.autograd.Function):
    """`integrate` with its gradient: one tensor kept for the way back, the potentials."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, num_steps: int, settings: LIFSettings) -> Tensor:
        spikes, potentials = integrate(current, num_steps, settings)
        # the next convolution keeps the spikes anyway, so that holding on to them costs nothing
        ctx.save_for_backward(potentials, spikes)
        ctx.num_steps, ctx.settings = num_steps, settings
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None, None]:
        potentials, spikes = ctx.saved_tensors
        settings: LIFSettings = ctx.settings
        surrogate = SURROGATES.get(settings.surrogate)
        leak = 1 - 1 / settings.tau
        grad_current = torch.empty_like(potentials)
        grad_next = None  # of the current one step later
        steps = [tensor.chunk(ctx.num_steps) for tensor in (grad_spikes, potentials, spikes, grad_current)]
        for grad_fired, potential, fired, grad in zip(*(reversed(step) for step in steps), strict=True):
            through_spike = surrogate(grad_fired, potential - settings.threshold, settings.surrogate_alpha)
            torch.mul(through_spike, 1 / settings.tau, out=grad)
            if grad_next is not None:
                # h[t] reaches x[t+1]'s potential through v[t], which is 0 where it has fired
                grad.add_(torch.addcmul(grad_next, grad_next, fired, value=-1), alpha=leak)
            grad_next = grad
        return grad_current, None, None
