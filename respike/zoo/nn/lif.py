"""LIF: the leaky integrate-and-fire neuron, all time steps in one call.

Rows are folded: `[num_steps · G, ...]` holds the first step of all G groups, then the second, and so on. With input x,
membrane v and potential h, a step computes h = v + (x - v) / τ, fires where h ≥ threshold, and resets v to 0 (hard) or
to h - threshold (soft) where it has fired.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.library import custom_op

from respike.common.config import Config, option
from respike.common.errors import SettingError
from respike.common.text import pick
from respike.zoo.model_options import LIF_BACKENDS, LIFBackend, Reset

# 1 / τ: a number, or a tensor of no dimensions where it is learned
Rate = float | Tensor
# (gradient of the spikes, u = h - threshold, α) → gradient of h, tensors of one shape; u may be overwritten
Surrogate = Callable[[Tensor, Tensor, float], Tensor]
# with these, each surrogate is about as steep as the published arctangent with α = 2
USUAL_ALPHAS = {"arctan": 2.0, "rectangle": 2.0, "sigmoid": 4.0, "triangle": 1.0}
# the only surrogate of the Triton kernels, and the device they run on
FUSED_SURROGATE = "arctan"
_DEVICE_TYPE = "cuda"
# neurons of a block for each thread, in elements: three steps of it fit a core's second-level cache
_BLOCK_ELEMENTS = 1 << 16
# the module lif_triton, once it was asked for and could be imported
_kernels: ModuleType | None = None


@dataclass(frozen=True, kw_only=True)
class LIFSettings(Config):
    """The settings of a layer of LIF neurons.

    With `learns_tau` each layer learns its own τ: early layers may forget fast while late ones gather evidence. Source:
    Fang et al., ICCV 2021 (parametric LIF), 1/τ = σ(w). A soft reset loses no charge, so a firing rate can follow a
    strong current more closely.
    """

    tau: Annotated[float, option("Membrane time constant in steps; at 1 no step depends on another.", ge=1)] = 4 / 3
    threshold: Annotated[float, option("Potential that fires.", gt=0)] = 1.0
    surrogate: Annotated[str, option("Gradient of a spike, one of SURROGATES.")] = "arctan"
    surrogate_alpha: Annotated[float, option("Sharpness α of the surrogate.", gt=0)] = 2.0
    reset: Annotated[Reset, option("hard, to 0 as published, or soft, by the threshold.")] = "hard"
    learns_tau: Annotated[bool, option("Whether each layer learns its own tau, starting from `tau`.")] = False

    def check(self) -> None:
        """Check the surrogate's name and the start of a learned tau. Raises RespikeError."""
        if self.learns_tau and self.tau == 1:
            raise SettingError("a tau of 1 cannot be learned from", "start above 1, such as at 2", setting="tau")
        pick(SURROGATES, self.surrogate, "surrogate gradient")


def arctan_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Return the gradient of a spike as if the step were an arctangent: times (α/2) / (1 + (π α u / 2)²).

    `overshoot` is u = h - threshold. Source: Fang et al., ICCV 2021, which takes α = 2.
    """
    # (2/α) · (1 + (π α u / 2)²): one division is left
    denominator = overshoot.square_().mul_(math.pi**2 * alpha / 2).add_(2 / alpha)
    return torch.div(grad_spikes, denominator, out=denominator)


def rectangle_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Return the gradient of a spike as α/2 within 1/α of the threshold, 0 elsewhere."""
    return grad_spikes * (overshoot.abs() < 1 / alpha) * (alpha / 2)


def sigmoid_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Return the gradient of a spike as if the step were a logistic curve: times α σ(α u) (1 - σ(α u)).

    Its tails fall off exponentially; the arctangent's are longer. Source: Zenke and Ganguli, Neural Computation 2018,
    in SpikingJelly's form; usual is α = 4.
    """
    risen = overshoot.mul_(alpha).sigmoid_()
    return (1 - risen).mul_(risen).mul_(alpha).mul_(grad_spikes)


def triangle_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Return the gradient of a spike as α (1 - α |u|) within 1/α of the threshold, 0 elsewhere.

    Neurons far from firing learn nothing, so gradients are sparse. Source: Bellec et al., NeurIPS 2018; usual is α = 1.
    """
    return overshoot.abs_().mul_(-alpha).add_(1).clamp_min_(0).mul_(alpha).mul_(grad_spikes)


SURROGATES: dict[str, Surrogate] = {
    "arctan": arctan_gradient,
    "rectangle": rectangle_gradient,
    "sigmoid": sigmoid_gradient,
    "triangle": triangle_gradient,
}


class LIF(nn.Module):
    """A layer of LIF neurons, one for each element of a row. It keeps no state between calls.

    It has one parameter where it learns τ, else none. `backend` decides what computes it, see `set_lif_backend`.
    """

    backend: LIFBackend = "torch"

    def __init__(self, settings: LIFSettings) -> None:
        super().__init__()
        self.settings = settings
        if settings.learns_tau:
            self.rate_logit = nn.Parameter(torch.tensor(-math.log(settings.tau - 1)))

    @property
    def rate(self) -> Rate:
        """1 / τ: a number, or a tensor of no dimensions, with a gradient, where it is learned."""
        return self.rate_logit.sigmoid() if self.settings.learns_tau else 1 / self.settings.tau

    @property
    def tau(self) -> float:
        """The present time constant of the membrane in steps."""
        rate = self.rate
        return 1 / (rate.item() if isinstance(rate, Tensor) else rate)

    def forward(self, current: Tensor, num_steps: int) -> Tensor:
        """Run `num_steps` steps on `current` `[num_steps · G, ...]` and return the spikes, 0 or 1, in the same shape.

        The membrane starts at 0 in each of the G groups. The gradient passes the potentials and the surrogate, not the
        reset.
        """
        rate = self.rate
        if kernels := kernels_for(current, num_steps, self.settings, self.backend):
            fused: Tensor = kernels.integrate_and_fire(_dense(current), rate, num_steps, self.settings)
            return fused
        if isinstance(rate, Tensor):
            rate = rate.to(current.dtype)
        if torch.compiler.is_compiling():
            return _compiled_lif(_dense(current), rate, num_steps, self.settings)
        spikes: Tensor = _IntegrateAndFire.apply(current, rate, num_steps, self.settings)
        return spikes

    def extra_repr(self) -> str:
        """Return the settings as `print(model)` shows them."""
        learned = " (learned)" if self.settings.learns_tau else ""
        facts = f"tau={self.tau:.4g}{learned}, threshold={self.settings.threshold:g}"
        return f"{facts}, {self.settings.reset} reset, {self.settings.surrogate}"


def integrate(
    current: Tensor, num_steps: int, settings: LIFSettings, rate: Rate | None = None
) -> tuple[Tensor, Tensor]:
    """Return spikes and potentials before the reset, both in the shape of `current` `[num_steps · G, ...]`.

    `rate` is the `LIF.rate` of a layer that learns it; None takes 1 / τ of `settings`. No gradient passes.
    """
    current = _dense(current.detach())
    rate = 1 / settings.tau if rate is None else rate.detach().to(current.dtype) if isinstance(rate, Tensor) else rate
    spikes, potentials = torch.empty_like(current), torch.empty_like(current)
    for arriving, fired, potential in _blocks(num_steps, current, spikes, potentials):
        for step, reached in enumerate(_run(arriving, fired, rate, settings)):
            potential[step] = reached
    return spikes, potentials


class _IntegrateAndFire(torch.autograd.Function):
    """Spikes with their gradient. The backward pass computes the potentials again, which is cheaper than keeping them.

    Only the current and the spikes are saved; other layers save both in any case.
    """

    @staticmethod
    def forward(ctx: Any, current: Tensor, rate: Rate, num_steps: int, settings: LIFSettings) -> Tensor:
        current = _dense(current)
        spikes = _fire(current, rate, num_steps, settings)
        learned = (rate,) if isinstance(rate, Tensor) else ()
        ctx.save_for_backward(current, spikes, *learned)
        ctx.rate = None if learned else rate
        ctx.num_steps, ctx.settings = num_steps, settings
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        current, spikes, *learned = ctx.saved_tensors
        rate = learned[0] if learned else ctx.rate
        return *_fire_back(grad_spikes, current, spikes, rate, ctx.num_steps, ctx.settings), None, None


def _fire(current: Tensor, rate: Rate, num_steps: int, settings: LIFSettings) -> Tensor:
    """Return the spikes of a dense `current`."""
    spikes = torch.empty_like(current)
    for arriving, fired in _blocks(num_steps, current, spikes):
        for _ in _run(arriving, fired, rate, settings):
            pass
    return spikes


def _fire_back(
    grad_spikes: Tensor, current: Tensor, spikes: Tensor, rate: Rate, num_steps: int, settings: LIFSettings
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of the current, and that of the rate where it is a tensor."""
    # the sum over a layer's many currents needs more digits than half precision has
    grad_rate = torch.zeros((), dtype=torch.promote_types(current.dtype, torch.float32), device=current.device)
    grad_current = torch.empty_like(current)
    if grad_spikes.stride() != current.stride():  # a block must hold the same neurons of each tensor
        grad_spikes = torch.empty_like(current).copy_(grad_spikes)
    for arriving, fired, grad_fired, grad in _blocks(num_steps, current, spikes, grad_spikes, grad_current):
        for step, before in _run_back(arriving, fired, grad_fired, grad, rate, settings):
            if isinstance(rate, Tensor):
                arrived = arriving[step] if before is None else arriving[step] - before
                grad_rate += torch.mul(arrived, grad[step]).sum(dtype=grad_rate.dtype)
    return grad_current, (grad_rate / rate).to(rate.dtype) if isinstance(rate, Tensor) else None


def _run(current: Tensor, fired: Tensor, rate: Rate, settings: LIFSettings) -> Iterator[Tensor]:
    """Run the steps of `current` `[num_steps, M]`, write the spikes into `fired` and yield each step's potential."""
    potential = None
    for step, arriving in enumerate(current):
        kept = None if potential is None else _reset(potential, fired[step - 1], settings)
        potential = _charge(kept, arriving, rate)
        torch.ge(potential, settings.threshold, out=fired[step])
        yield potential


def _reset(potential: Tensor, fired: Tensor, settings: LIFSettings) -> Tensor:
    """Return v, the potential after the reset."""
    if settings.reset == "soft":
        return torch.add(potential, fired, alpha=-settings.threshold)
    return torch.addcmul(potential, potential, fired, value=-1)


def _charge(kept: Tensor | None, arriving: Tensor, rate: Rate) -> Tensor:
    """Return h, the potential after a step's current. `kept` is v, overwritten, or None for 0."""
    if kept is None:
        return arriving * rate
    return torch.lerp(kept, arriving, rate, out=kept)


def _run_back(
    current: Tensor, fired: Tensor, grad_fired: Tensor, grad: Tensor, rate: Rate, settings: LIFSettings
) -> Iterator[tuple[int, Tensor | None]]:
    """Write the gradient of `current` `[num_steps, M]` into `grad`, from the last step to the first.

    Yields each step's number and the membrane v that it started from, None for 0.
    """
    surrogate = SURROGATES[settings.surrogate]
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


def _blocks(num_steps: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors `[num_steps · G, ...]` of equal strides into views `[num_steps, M]` of the same M neurons.

    On a CPU all steps of a block fit into the cache; elsewhere one block holds all neurons.
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
    """Return a tensor without gaps, in one of the two usual orders in memory; a copy where it is not so already."""
    in_order = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    return tensor if in_order else tensor.contiguous()


def set_lif_backend(model: nn.Module, backend: LIFBackend) -> None:
    """Choose what computes the neurons of `model`: `torch` (the default), `triton`, or `auto`, Triton if it is there.

    Triton's kernels take float32, float16 and bfloat16 on CUDA, the arctangent surrogate and up to 32 steps. Potentials
    are float32. Torch's operators compute everything else, as on a CPU. Raises SettingError on another name, or where
    `triton` is asked for and cannot be used.
    """
    if backend not in LIF_BACKENDS:
        raise SettingError(
            f"lif_backend is {backend!r}", f"choose from {', '.join(LIF_BACKENDS)}", setting="lif_backend"
        )
    layers = [module for module in model.modules() if isinstance(module, LIF)]
    if backend != "torch":
        _load_kernels()
    if backend == "triton":
        _check_fused({layer.settings.surrogate for layer in layers})
    for layer in layers:
        layer.backend = backend


def kernels_for(current: Tensor, num_steps: int, settings: LIFSettings, backend: LIFBackend) -> ModuleType | None:
    """Return the module `lif_triton` where `backend` asks for it and it takes such currents, else None."""
    if backend == "torch" or _kernels is None or current.device.type != _DEVICE_TYPE:
        return None
    is_known = settings.surrogate == FUSED_SURROGATE and current.dtype in _kernels.DTYPES
    return _kernels if is_known and num_steps <= _kernels.MOST_STEPS else None


def _load_kernels() -> None:
    global _kernels
    try:
        _kernels = import_module("respike.zoo.nn.lif_triton")
    # macOS has no Triton, torch 2.6 an older one
    except ImportError:
        _kernels = None


def _check_fused(surrogates: set[str]) -> None:
    if _kernels is None:
        raise SettingError(
            "lif_backend is 'triton', and there is no Triton 3.3 or later here",
            "take torch, or install torch 2.7 or later, built for CUDA",
            setting="lif_backend",
        )
    if others := surrogates - {FUSED_SURROGATE}:
        raise SettingError(
            f"lif_backend is 'triton', which has no surrogate gradient {', '.join(sorted(others))}",
            f"take torch, or the surrogate {FUSED_SURROGATE}",
            setting="lif_backend",
        )


# torch.compile does not look into the loop over time: for a compiler it is one operator, with one for its gradient
def _compiled_lif(current: Tensor, rate: Rate, num_steps: int, settings: LIFSettings) -> Tensor:
    """Return the spikes of a dense `current` `[num_steps · G, ...]`; a `rate` that is a tensor gets a gradient."""
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
    return _fire(current, rate, num_steps, _settings(learned, tau, threshold, surrogate, alpha, reset))


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
    grad, grad_rate = _fire_back(grad_spikes, current, spikes, rate, num_steps, settings)
    return grad, current.new_zeros(()) if grad_rate is None else grad_rate


def _settings(
    learned: Tensor | None, tau: float, threshold: float, surrogate: str, alpha: float, reset: Any
) -> LIFSettings:
    """Return the neurons' settings, which an operator must take one by one."""
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


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    current, learned, *ctx.settings = inputs
    ctx.save_for_backward(current, output, learned)


def _go_backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor | None, ...]:
    current, spikes, learned = ctx.saved_tensors
    grad, grad_rate = _backward(grad_spikes, current, spikes, learned, *ctx.settings)
    return grad, None if learned is None else grad_rate, *(None,) * len(ctx.settings)


_forward.register_autograd(_go_backward, setup_context=_save_for_backward)
