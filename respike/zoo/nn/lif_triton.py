"""LIF in Triton: one kernel for all time steps of a layer, one for their gradient. Importing it needs Triton 3.3.

A program takes a block of neurons through all steps. Potentials stay in registers, in float32 for every type of
current, and memory is read and written once. `lif.py` computes the same with torch's operators.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

if TYPE_CHECKING:
    from respike.zoo.nn.lif import LIFSettings

# in 3.2 a tuple cannot grow
if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
    raise ImportError(f"Triton {triton.__version__} is older than 3.3")

# the backward kernel keeps a neuron's potentials of all steps in registers
MOST_STEPS = 32
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# (steps, neurons of a program): the more steps, the fewer neurons fit into registers
_BLOCKS = ((4, 1024), (16, 512), (MOST_STEPS, 256))


def integrate_and_fire(current: Tensor, rate: float | Tensor, num_steps: int, settings: "LIFSettings") -> Tensor:
    """Return the spikes of `current` `[num_steps · G, ...]`, in its shape, order and type; arctangent surrogate.

    `current` is dense, in one of the two usual orders in memory, and of one of DTYPES; `num_steps` is at most
    MOST_STEPS. `rate` is 1 / τ, a number, or a tensor of no dimensions that gets a gradient.
    """
    learned, fixed = (rate.float(), 0.0) if isinstance(rate, Tensor) else (None, rate)
    spikes: Tensor = _forward(
        current,
        learned,
        fixed,
        num_steps,
        settings.threshold,
        settings.surrogate_alpha,
        settings.reset == "soft",
    )
    return spikes


# as operators of torch each is one node for torch.compile and CUDA graphs
@custom_op("respike::lif", mutates_args=())
def _forward(
    current: Tensor, learned: Tensor | None, fixed: float, num_steps: int, threshold: float, alpha: float, is_soft: bool
) -> Tensor:
    spikes = torch.empty_like(current)
    num_neurons, block, num_programs = _division(current, num_steps)
    if num_neurons:
        with torch.cuda.device_of(current):  # type: ignore[no-untyped-call]
            _forward_kernel[(num_programs,)](
                current,
                spikes,
                learned,
                fixed,
                threshold,
                num_neurons,
                NUM_STEPS=num_steps,
                IS_SOFT=is_soft,
                BLOCK=block,
            )
    return spikes


@custom_op("respike::lif_backward", mutates_args=())
def _backward(
    current: Tensor,
    spikes: Tensor,
    grad_spikes: Tensor,
    learned: Tensor | None,
    fixed: float,
    num_steps: int,
    threshold: float,
    alpha: float,
    is_soft: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the current, and the rate's gradient of each program."""
    grad_current = torch.empty_like(current)
    if grad_spikes.stride() != current.stride():  # an index must be the same neuron in each tensor
        grad_spikes = torch.empty_like(current).copy_(grad_spikes)
    num_neurons, block, num_programs = _division(current, num_steps)
    grad_rate = torch.zeros(num_programs, dtype=torch.float32, device=current.device)
    if num_neurons:
        with torch.cuda.device_of(current):  # type: ignore[no-untyped-call]
            _backward_kernel[(num_programs,)](
                current,
                spikes,
                grad_spikes,
                grad_current,
                grad_rate,
                learned,
                fixed,
                threshold,
                math.pi * alpha / 2,
                alpha / 2,
                num_neurons,
                NUM_STEPS=num_steps,
                IS_SOFT=is_soft,
                BLOCK=block,
            )
    return grad_current, grad_rate


@_forward.register_fake
def _(current: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(current)


@_backward.register_fake
def _(current: Tensor, spikes: Tensor, grad_spikes: Tensor, learned: Any, fixed: float, num_steps: int, *_: Any) -> Any:
    num_programs = _division(current, num_steps)[2]
    return torch.empty_like(current), current.new_empty(num_programs, dtype=torch.float32)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    current, learned, *ctx.settings = inputs
    ctx.save_for_backward(current, output, learned)


def _go_backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor | None, ...]:
    current, spikes, learned = ctx.saved_tensors
    grad_current, by_program = _backward(current, spikes, grad_spikes, learned, *ctx.settings)
    grad_rate = None if learned is None else by_program.sum()
    return grad_current, grad_rate, None, None, None, None, None


_forward.register_autograd(_go_backward, setup_context=_save_for_backward)


def _division(current: Tensor, num_steps: int) -> tuple[int, int, int]:
    """Return the number of neurons, of neurons of a program, and of programs."""
    num_neurons = current.numel() // num_steps
    block = next(size for most, size in _BLOCKS if num_steps <= most)
    return num_neurons, block, -(-num_neurons // block)


# shared by both kernels; Triton inlines these functions
@triton.jit  # type: ignore[untyped-decorator]
def _neurons_of_program(num_neurons, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    # 64 bits: all steps of a large batch are more than 2³¹ elements
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return place, place < num_neurons


@triton.jit
def _read(tensor, place, mask):  # type: ignore[no-untyped-def]
    return tl.load(tensor + place, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _rate_of(learned, rate):  # type: ignore[no-untyped-def]
    return rate if learned is None else tl.load(learned)


@triton.jit  # type: ignore[untyped-decorator]
def _charge(kept, arriving, rate, IS_FIRST: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    # the two forms of torch.lerp, so that both versions round alike
    rising = kept + rate * (arriving - kept)
    falling = arriving - (arriving - kept) * (1 - rate)
    return arriving * rate if IS_FIRST else tl.where(rate < 0.5, rising, falling)


@triton.jit  # type: ignore[untyped-decorator]
def _reset(potential, fired, threshold, IS_SOFT: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    return potential - threshold * fired if IS_SOFT else potential * (1 - fired)


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(  # type: ignore[no-untyped-def]
    current,
    spikes,
    learned,
    rate,
    threshold,
    num_neurons,
    NUM_STEPS: tl.constexpr,  # noqa: N803
    IS_SOFT: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    place, mask = _neurons_of_program(num_neurons, BLOCK)
    rate = _rate_of(learned, rate)
    kept = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(NUM_STEPS):
        potential = _charge(kept, _read(current, place, mask), rate, step == 0)
        fired = (potential >= threshold).to(tl.float32)
        tl.store(spikes + place, fired.to(spikes.dtype.element_ty), mask=mask)
        kept = _reset(potential, fired, threshold, IS_SOFT)
        place += num_neurons


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(  # type: ignore[no-untyped-def]
    current,
    spikes,
    grad_spikes,
    grad_current,
    grad_rate,
    learned,
    rate,
    threshold,
    slope,
    height,
    num_neurons,
    NUM_STEPS: tl.constexpr,  # noqa: N803
    IS_SOFT: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    place, mask = _neurons_of_program(num_neurons, BLOCK)
    rate = _rate_of(learned, rate)
    kept = tl.zeros([BLOCK], tl.float32)
    potentials = ()
    for step in tl.static_range(NUM_STEPS):
        potential = _charge(kept, _read(current, place, mask), rate, step == 0)
        fired = _read(spikes, place, mask)
        potentials = potentials + (potential,)  # type: ignore[assignment]  # noqa: RUF005  # no star in Triton
        kept = _reset(potential, fired, threshold, IS_SOFT)
        place += num_neurons
    through_membrane = tl.zeros([BLOCK], tl.float32)
    summed = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(NUM_STEPS - 1, -1, -1):
        place -= num_neurons
        if not IS_SOFT:  # h[t] reaches h[t+1] through v[t], which is 0 where it has fired
            fired = _read(spikes, place, mask)
            through_membrane = through_membrane * (1 - fired)
        arctan = slope * (potentials[step] - threshold)
        arriving_grad = _read(grad_spikes, place, mask)
        grad = arriving_grad * (height / (1 + arctan * arctan)) + through_membrane
        tl.store(grad_current + place, (grad * rate).to(grad_current.dtype.element_ty), mask=mask)
        if learned is not None:
            arriving = _read(current, place, mask)
            if step > 0:
                # not by _read: subtracted last, it compiles to other registers
                fired_before = tl.load(spikes + place - num_neurons, mask=mask, other=0.0).to(tl.float32)
                arriving -= _reset(potentials[step - 1], fired_before, threshold, IS_SOFT)
            summed += grad * arriving
        through_membrane = grad * (1 - rate)
    if learned is not None:
        tl.store(grad_rate + tl.program_id(0), tl.sum(summed))
