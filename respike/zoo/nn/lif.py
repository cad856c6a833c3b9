"""LIF: the leaky integrate-and-fire neuron, all time steps in one call, with a backward pass of its own.

    potential   h[t] = v[t-1] + (x[t] - v[t-1]) / τ        v starts at 0
    spike       s[t] = 1 where h[t] ≥ threshold, else 0
    reset       v[t] = h[t] · (1 - s[t])                    hard, to 0
             or v[t] = h[t] - threshold · s[t]              soft: what lay above the threshold stays

The rate 1 / τ is a constant of the layer, or one number a layer that is learned.

Time is folded into the batch, step after step: row t·G + g holds step t of group g. Only this module tells the steps
apart; every other layer takes the folded rows as an ordinary batch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from respike.errors import SettingError
from respike.zoo.nn.lif_backend import LIFBackend, kernels_for
from respike.zoo.nn.lif_operator import integrate_and_fire
from respike.zoo.nn.neuron_blocks import blocks, dense
from respike.zoo.nn.surrogate import SURROGATES

Reset = Literal["hard", "soft"]
# 1 / τ: a number, or a tensor of one where it is learned
Rate = float | Tensor


@dataclass(frozen=True, kw_only=True)
class LIFSettings:
    """What makes a LIF neuron.

    - `tau`: the membrane's time constant in steps (≥ 1; at 1 nothing is kept from step to step).
    - `learns_tau`: whether each layer learns its own, starting from `tau` (> 1): early layers may then forget fast
      while late ones gather evidence. Source: Fang et al., ICCV 2021 (parametric LIF), 1/τ = σ(w).
    - `threshold`: the potential that fires (> 0).
    - `reset`: `hard`, to 0, as published; `soft`, by the threshold, which loses no charge, so that a firing rate can
      follow a strong current more closely.
    - `surrogate`: one of SURROGATES, by which gradients pass a spike; `surrogate_alpha`: its sharpness α (> 0).
    """

    tau: float = 4 / 3
    threshold: float = 1.0
    surrogate: str = "arctan"
    surrogate_alpha: float = 2.0
    reset: Reset = "hard"
    learns_tau: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.tau < math.inf:
            raise SettingError(f"tau is {self.tau}, allowed are values from 1", "the published network takes 4/3")
        if self.learns_tau and self.tau == 1:
            raise SettingError("a tau of 1 cannot be learned from", "start above 1, as from 2")
        if self.reset not in get_args(Reset):
            raise SettingError(f"reset {self.reset!r}", f"choose from {', '.join(get_args(Reset))}")
        for name in ("threshold", "surrogate_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}, allowed are values above 0", "take the default")
        SURROGATES.get(self.surrogate)


class LIF(nn.Module):
    """A layer of LIF neurons, one for each element of a row; it keeps nothing between calls.

    It has one parameter where it learns τ, else none. `backend` (see `set_lif_backend`) decides who computes it.
    """

    backend: LIFBackend = "torch"

    def __init__(self, settings: LIFSettings) -> None:
        super().__init__()
        self.settings = settings
        if settings.learns_tau:
            self.rate_logit = nn.Parameter(torch.tensor(-math.log(settings.tau - 1)))

    @property
    def rate(self) -> Rate:
        """1 / τ: a number, or where it is learned a tensor of no dimensions that passes gradients."""
        return self.rate_logit.sigmoid() if self.settings.learns_tau else 1 / self.settings.tau

    @property
    def tau(self) -> float:
        """The membrane's time constant in steps, as it stands."""
        rate = self.rate
        return 1 / (rate.item() if isinstance(rate, Tensor) else rate)

    def forward(self, current: Tensor, num_steps: int) -> Tensor:
        """Run `num_steps` steps on `current` `[num_steps · G, ...]` and return the spikes, 0 or 1, in the same shape.

        The membrane starts at 0 in each of the G groups. The gradient goes through the potentials and the surrogate,
        not through the reset.
        """
        rate = self.rate
        if kernels := kernels_for(current, num_steps, self.settings, self.backend):
            fused: Tensor = kernels.integrate_and_fire(dense(current), rate, num_steps, self.settings)
            return fused
        if isinstance(rate, Tensor):
            rate = rate.to(current.dtype)
        if torch.compiler.is_compiling():
            return integrate_and_fire(dense(current), rate, num_steps, self.settings)
        spikes: Tensor = _IntegrateAndFire.apply(current, rate, num_steps, self.settings)
        return spikes

    def extra_repr(self) -> str:
        """What `print(model)` shows of the settings."""
        learned = " (learned)" if self.settings.learns_tau else ""
        facts = f"tau={self.tau:.4g}{learned}, threshold={self.settings.threshold:g}"
        return f"{facts}, {self.settings.reset} reset, {self.settings.surrogate}"


def integrate(
    current: Tensor, num_steps: int, settings: LIFSettings, rate: Rate | None = None
) -> tuple[Tensor, Tensor]:
    """Return spikes and potentials (before the reset), each of the shape of `current` `[num_steps · G, ...]`.

    `rate` is 1 / τ of a layer that learns it (`LIF.rate`), None for that of `settings`. No gradient passes; for that
    there is `LIF`.
    """
    current = dense(current.detach())
    rate = 1 / settings.tau if rate is None else rate.detach().to(current.dtype) if isinstance(rate, Tensor) else rate
    spikes, potentials = torch.empty_like(current), torch.empty_like(current)
    for arriving, fired, potential in blocks(num_steps, current, spikes, potentials):
        for step, reached in enumerate(_run(arriving, fired, rate, settings)):
            potential[step] = reached
    return spikes, potentials


class _IntegrateAndFire(torch.autograd.Function):
    """Spikes with their gradient. The potentials are computed again on the way back rather than kept: that is cheaper.

    What is kept, the current and the spikes, lives on in the graph in any case.
    """

    @staticmethod
    def forward(ctx: Any, current: Tensor, rate: Rate, num_steps: int, settings: LIFSettings) -> Tensor:
        current = dense(current)
        spikes = fire(current, rate, num_steps, settings)
        learned = (rate,) if isinstance(rate, Tensor) else ()
        ctx.save_for_backward(current, spikes, *learned)
        ctx.rate = None if learned else rate
        ctx.num_steps, ctx.settings = num_steps, settings
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        current, spikes, *learned = ctx.saved_tensors
        rate = learned[0] if learned else ctx.rate
        return *fire_back(grad_spikes, current, spikes, rate, ctx.num_steps, ctx.settings), None, None


def fire(current: Tensor, rate: Rate, num_steps: int, settings: LIFSettings) -> Tensor:
    """The spikes of a dense `current`."""
    spikes = torch.empty_like(current)
    for arriving, fired in blocks(num_steps, current, spikes):
        for _ in _run(arriving, fired, rate, settings):
            pass
    return spikes


def fire_back(
    grad_spikes: Tensor, current: Tensor, spikes: Tensor, rate: Rate, num_steps: int, settings: LIFSettings
) -> tuple[Tensor, Tensor | None]:
    """The gradients of the current and, where it is a tensor, of the rate."""
    # a layer's currents are many: their sum needs more digits than half precision has
    grad_rate = torch.zeros((), dtype=torch.promote_types(current.dtype, torch.float32), device=current.device)
    grad_current = torch.empty_like(current)
    if grad_spikes.stride() != current.stride():  # a block must be the same neurons in each
        grad_spikes = torch.empty_like(current).copy_(grad_spikes)
    for arriving, fired, grad_fired, grad in blocks(num_steps, current, spikes, grad_spikes, grad_current):
        for step, before in _run_back(arriving, fired, grad_fired, grad, rate, settings):
            if isinstance(rate, Tensor):
                arrived = arriving[step] if before is None else arriving[step] - before
                grad_rate += torch.mul(arrived, grad[step]).sum(dtype=grad_rate.dtype)
    return grad_current, (grad_rate / rate).to(rate.dtype) if isinstance(rate, Tensor) else None


def _run(current: Tensor, fired: Tensor, rate: Rate, settings: LIFSettings) -> Iterator[Tensor]:
    """Run the steps of `current` `[num_steps, M]`, write the spikes into `fired`, give each step's potential."""
    potential = None
    for step, arriving in enumerate(current):
        kept = None if potential is None else _reset(potential, fired[step - 1], settings)
        potential = _charge(kept, arriving, rate)
        torch.ge(potential, settings.threshold, out=fired[step])
        yield potential


def _reset(potential: Tensor, fired: Tensor, settings: LIFSettings) -> Tensor:
    """v: what stays of a potential after its spike."""
    if settings.reset == "soft":
        return torch.add(potential, fired, alpha=-settings.threshold)
    return torch.addcmul(potential, potential, fired, value=-1)


def _charge(kept: Tensor | None, arriving: Tensor, rate: Rate) -> Tensor:
    """h: the potential after a step's current; `kept` is overwritten, None stands for 0."""
    if kept is None:
        return arriving * rate
    return torch.lerp(kept, arriving, rate, out=kept)


def _run_back(
    current: Tensor, fired: Tensor, grad_fired: Tensor, grad: Tensor, rate: Rate, settings: LIFSettings
) -> Iterator[tuple[int, Tensor | None]]:
    """Write the gradient of `current` `[num_steps, M]` into `grad`, from the last step to the first.

    After each step gives its number and the membrane v that it started from, None for 0.
    """
    surrogate = SURROGATES.get(settings.surrogate)
    potentials: list[Tensor] = []
    for step, arriving in enumerate(current):
        kept = _reset(potentials[-1], fired[step - 1], settings) if potentials else None
        potentials.append(_charge(kept, arriving, rate))
    for step in reversed(range(len(current))):
        overshoot = potentials[step].sub_(settings.threshold)
        through_spike = surrogate(grad_fired[step], overshoot, settings.surrogate_alpha)
        torch.mul(through_spike, rate, out=grad[step])
        if step + 1 < len(current):
            through_membrane = grad[step + 1]
            if settings.reset == "hard":  # h[t] reaches h[t+1] through v[t], which is 0 where it has fired
                through_membrane = torch.addcmul(through_membrane, through_membrane, fired[step], value=-1)
            _add_scaled(grad[step], through_membrane, 1 - rate)
        yield step, _reset(potentials[step - 1], fired[step - 1], settings) if step and settings.learns_tau else None


def _add_scaled(total: Tensor, part: Tensor, factor: Rate) -> None:
    if isinstance(factor, Tensor):
        total.addcmul_(part, factor)
    else:
        total.add_(part, alpha=factor)
