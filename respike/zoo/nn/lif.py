"""LIF: the leaky integrate-and-fire neuron, all time steps in one call, with a backward pass of its own.

    potential   h[t] = v[t-1] + (x[t] - v[t-1]) / τ        v starts at 0
    spike       s[t] = 1 where h[t] ≥ threshold, else 0
    reset       v[t] = h[t] · (1 - s[t])                    hard, to 0

Time is folded into the batch, step after step: row t·G + g holds step t of group g. Only this module tells the steps
apart; every other layer takes the folded rows as an ordinary batch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from respike.errors import SettingError
from respike.registry import Registry

# neurons of a block a thread works on, in elements: three steps of it fit a core's second-level cache
_BLOCK_ELEMENTS = 1 << 16

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
    current = _dense(current.detach())
    spikes, potentials = torch.empty_like(current), torch.empty_like(current)
    for arriving, fired, potential in _blocks(num_steps, current, spikes, potentials):
        for step, reached in enumerate(_run(arriving, fired, settings)):
            potential[step] = reached
    return spikes, potentials


class _IntegrateAndFire(torch.autograd.Function):
    """Spikes with their gradient. The potentials are computed again on the way back rather than kept: that is cheaper.

    What is kept, the current and the spikes, lives on in the graph in any case.
    """

    @staticmethod
    def forward(ctx: Any, current: Tensor, num_steps: int, settings: LIFSettings) -> Tensor:
        current = _dense(current)
        spikes = torch.empty_like(current)
        for arriving, fired in _blocks(num_steps, current, spikes):
            for _ in _run(arriving, fired, settings):
                pass
        ctx.save_for_backward(current, spikes)
        ctx.num_steps, ctx.settings = num_steps, settings
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None, None]:
        current, spikes = ctx.saved_tensors
        grad_current = torch.empty_like(current)
        if grad_spikes.stride() != current.stride():  # a block must be the same neurons in each
            grad_spikes = torch.empty_like(current).copy_(grad_spikes)
        for arriving, fired, grad_fired, grad in _blocks(ctx.num_steps, current, spikes, grad_spikes, grad_current):
            _run_back(arriving, fired, grad_fired, grad, ctx.settings)
        return grad_current, None, None


def _run(current: Tensor, fired: Tensor, settings: LIFSettings) -> Iterator[Tensor]:
    """Run the steps of `current` `[num_steps, M]`, write the spikes into `fired`, give each step's potential."""
    potential = None
    for step, arriving in enumerate(current):
        potential = _next_potential(potential, fired[step - 1], arriving, settings)
        torch.ge(potential, settings.threshold, out=fired[step])
        yield potential


def _next_potential(before: Tensor | None, fired_before: Tensor, arriving: Tensor, settings: LIFSettings) -> Tensor:
    if before is None:
        return arriving * (1 / settings.tau)
    kept = torch.addcmul(before, before, fired_before, value=-1)
    return torch.lerp(kept, arriving, 1 / settings.tau, out=kept)


def _run_back(current: Tensor, fired: Tensor, grad_fired: Tensor, grad: Tensor, settings: LIFSettings) -> None:
    """Write the gradient of `current` `[num_steps, M]` into `grad`, from the last step to the first."""
    surrogate = SURROGATES.get(settings.surrogate)
    potentials: list[Tensor] = []
    for step, arriving in enumerate(current):
        before = potentials[-1] if potentials else None
        potentials.append(_next_potential(before, fired[step - 1], arriving, settings))
    for step in reversed(range(len(current))):
        overshoot = potentials[step].sub_(settings.threshold)
        through_spike = surrogate(grad_fired[step], overshoot, settings.surrogate_alpha)
        torch.mul(through_spike, 1 / settings.tau, out=grad[step])
        if step + 1 < len(current):
            # h[t] reaches h[t+1] through v[t], which is 0 where it has fired
            through_membrane = torch.addcmul(grad[step + 1], grad[step + 1], fired[step], value=-1)
            grad[step].add_(through_membrane, alpha=1 - 1 / settings.tau)


def _blocks(num_steps: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors `[num_steps · G, ...]` of equal strides into views `[num_steps, M]` of the same M neurons each.

    On a CPU M is small enough for all steps of a block to stay in its cache; elsewhere one block holds all.
    """
    flat = [_in_memory_order(tensor).view(num_steps, -1) for tensor in tensors]
    num_neurons = flat[0].shape[1]
    on_cpu = tensors[0].device.type == "cpu"
    size = _BLOCK_ELEMENTS * torch.get_num_threads() if on_cpu else max(num_neurons, 1)
    for start in range(0, num_neurons, size):
        yield tuple(tensor[:, start : start + size] for tensor in flat)


def _in_memory_order(tensor: Tensor) -> Tensor:
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1)
    return tensor


def _dense(tensor: Tensor) -> Tensor:
    """Copy a tensor with gaps or of an odd order; leave the two usual orders as they are."""
    in_order = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    return tensor if in_order else tensor.contiguous()
