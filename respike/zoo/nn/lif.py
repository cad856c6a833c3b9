"""LIF: the leaky integrate-and-fire neuron, all time steps in one call."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.library import custom_op

from respike.common.errors import SettingError
from respike.common.text import Registry
from respike.zoo.model_options import LIF_BACKENDS, LIFBackend

if TYPE_CHECKING:
    from torch import Tensor, nn


# (gradient of the spikes, u = h - threshold, α) → gradient of h, all tensors of one shape, whichever it is; u is the
# function's own to overwrite
Surrogate = Callable[[Tensor, Tensor, float], Tensor]
# where each is about as steep as the arctangent of α = 2 is published to be
USUAL_ALPHAS = {"arctan": 2.0, "rectangle": 2.0, "sigmoid": 4.0, "triangle": 1.0}
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


@SURROGATES.register("sigmoid")
def sigmoid_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike as if the step were a logistic curve: times α σ(α u) (1 - σ(α u)).

    Its tails fall off exponentially, where the arctangent's reach far. Source: Zenke and Ganguli, Neural Computation
    2018, in the form that SpikingJelly has it; usual is α = 4.
    """
    risen = overshoot.mul_(alpha).sigmoid_()
    return (1 - risen).mul_(risen).mul_(alpha).mul_(grad_spikes)


@SURROGATES.register("triangle")
def triangle_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike within 1/α of the threshold, times α (1 - α |u|); block it elsewhere.

    Neurons far from firing learn nothing, so that gradients are sparse. Source: Bellec et al., NeurIPS 2018; usual is
    α = 1.
    """
    return overshoot.abs_().mul_(-alpha).add_(1).clamp_min_(0).mul_(alpha).mul_(grad_spikes)


# neurons of a block a thread works on, in elements: three steps of it fit a core's second-level cache
_BLOCK_ELEMENTS = 1 << 16


def blocks(num_steps: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
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


def dense(tensor: Tensor) -> Tensor:
    """Copy a tensor with gaps or of an odd order; leave the two usual orders as they are."""
    in_order = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    return tensor if in_order else tensor.contiguous()


FUSED_SURROGATE = "arctan"
_DEVICE_TYPE = "cuda"
# lif_triton, once it was asked for and has come
_kernels: ModuleType | None = None


def set_lif_backend(model: "nn.Module", backend: LIFBackend) -> None:
    """Let `backend` compute the neurons of `model`: `torch`, as they begin, `triton`, or `auto`, Triton if it is there.

    Triton's kernels take single and half precision on CUDA, the arctangent surrogate and up to 32 steps; potentials
    are in single precision. Whatever else a layer meets goes through torch's operators, as on a CPU. Raises
    SettingError where there is no such backend, or `triton` is asked for and cannot be had.
    """
    if backend not in LIF_BACKENDS:
        raise SettingError(f"lif_backend is {backend!r}", f"choose from {', '.join(LIF_BACKENDS)}")
    layers = [module for module in model.modules() if isinstance(module, LIF)]
    if backend != "torch":
        _load_kernels()
    if backend == "triton":
        _check_fused({layer.settings.surrogate for layer in layers})
    for layer in layers:
        layer.backend = backend


def kernels_for(current: "Tensor", num_steps: int, settings: "LIFSettings", backend: LIFBackend) -> ModuleType | None:
    """Return `lif_triton` where `backend` asks for it and it takes such currents; None means torch's operators."""
    if backend == "torch" or _kernels is None or current.device.type != _DEVICE_TYPE:
        return None
    is_known = settings.surrogate == FUSED_SURROGATE and current.dtype in _kernels.DTYPES
    return _kernels if is_known and num_steps <= _kernels.MOST_STEPS else None


def _load_kernels() -> None:
    global _kernels
    try:
        _kernels = import_module("respike.zoo.nn.lif_triton")
    except ImportError:  # no Triton, as on macOS, or an old one, as with torch 2.6
        _kernels = None


def _check_fused(surrogates: set[str]) -> None:
    if _kernels is None:
        raise SettingError(
            "lif_backend is 'triton', and there is no Triton 3.3 or later here",
            "take torch, or install torch 2.7 or later, built for CUDA",
        )
    if others := surrogates - {FUSED_SURROGATE}:
        raise SettingError(
            f"lif_backend is 'triton', which has no surrogate gradient {', '.join(sorted(others))}",
            f"take torch, or the surrogate {FUSED_SURROGATE}",
        )


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

    rate = 1 / tau if learned is None else learned
    return fire(current, rate, num_steps, _settings(learned, tau, threshold, surrogate, alpha, reset))


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

    rate = 1 / tau if learned is None else learned
    settings = _settings(learned, tau, threshold, surrogate, alpha, reset)
    grad, grad_rate = fire_back(grad_spikes, current, spikes, rate, num_steps, settings)
    return grad, current.new_zeros(()) if grad_rate is None else grad_rate


def _settings(
    learned: Tensor | None, tau: float, threshold: float, surrogate: str, alpha: float, reset: Any
) -> "LIFSettings":
    """The neurons' settings again, which an operator takes one by one."""
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
