"""Whether the fused neurons compute what the plain ones do, on a GPU: spikes and gradients, alone and in the network.

Each case compiles two kernels. The plain neurons compute in single precision, from the same currents.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from respike.zoo.nn.lif import LIF, LIFSettings, set_lif_backend
from torch import Tensor
from torch.nn import functional as F

from gpu_step import TrainingStep, Work, mixed

# of a gradient, as a share of the largest: single precision, and one unit in the last place of the half ones
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}
# a potential within rounding of the threshold may fire in one version alone
MOST_UNEQUAL = 1e-4
STEPS = (3, 1, 7, 15, 32)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Neurons, and a current `[num_steps · 5, 33, 7, 9]` for them."""

    settings: LIFSettings
    num_steps: int
    dtype: torch.dtype
    is_channels_last: bool


def make_cases() -> Iterator[Case]:
    """Both resets, fixed and learned rates, all numbers of steps; types, orders and constants in turn."""
    dtypes = tuple(TOLERANCES)
    kinds = itertools.product(STEPS, ("hard", "soft"), (False, True))
    for number, (num_steps, reset, learns_tau) in enumerate(kinds):
        settings = LIFSettings(
            tau=(4 / 3, 3.0, 1.6)[number % 3],
            threshold=(1.0, 0.7)[number // 2 % 2],
            surrogate_alpha=(2.0, 3.5)[number // 3 % 2],
            reset=reset,
            learns_tau=learns_tau,
        )
        yield Case(
            settings=settings, num_steps=num_steps, dtype=dtypes[number % 3], is_channels_last=number // 2 % 2 == 0
        )
    # the published network's, in each type
    for dtype in dtypes:
        yield Case(settings=LIFSettings(), num_steps=3, dtype=dtype, is_channels_last=True)


def check_neurons(device: str, seconds: float = 60.0) -> dict[str, Any]:
    """Hold the fused layer against the plain one, case after case, for so many seconds; say what was found."""
    started, found, left = time.perf_counter(), [], 0
    for case in make_cases():
        if time.perf_counter() - started > seconds:
            left += 1
        else:
            found.append((case, compare(case, device)))
    wrong = [f"{case}: {figures}" for case, figures in found if not is_equal(case, figures)]
    twin = compare(Case(settings=LIFSettings(), num_steps=3, dtype=torch.float32, is_channels_last=True), device, 0.9)
    return {
        "cases": len(found),
        "cases_left_out": left,
        "wrong": wrong,
        "unequal_spikes": sum(figures["unequal_spikes"] for _, figures in found),
        "spikes": sum(figures["spikes"] for _, figures in found),
        **{
            f"gradient_off_{str(dtype).removeprefix('torch.')}": max(
                (figures["gradient_off"] for case, figures in found if case.dtype == dtype), default=None
            )
            for dtype in TOLERANCES
        },
        "rate_gradient_off": max((figures["rate_gradient_off"] for _, figures in found), default=None),
        "tells_another_threshold_apart": twin["unequal_spikes"] > 0.001 * twin["spikes"],
        "check_s": round(time.perf_counter() - started, 1),
    }


def is_equal(case: Case, figures: dict[str, float]) -> bool:
    """Whether the two agree but for rounding."""
    is_same = figures["unequal_spikes"] <= MOST_UNEQUAL * figures["spikes"]
    return is_same and figures["gradient_off"] <= TOLERANCES[case.dtype] and figures["rate_gradient_off"] <= 2e-3


def compare(case: Case, device: str, factor: float = 1.0) -> dict[str, float]:
    """How far apart plain and fused are. `factor` of the threshold makes the fused neurons others.

    Gradients are those of neurons whose spikes agree in every step, off by so much of the largest.
    """
    plain, fused = LIF(case.settings).to(device), LIF(_scaled(case.settings, factor)).to(device)
    set_lif_backend(fused, "triton")
    order = torch.channels_last if case.is_channels_last else torch.contiguous_format
    shape = (case.num_steps * 5, 33, 7, 9)
    current = (2 * torch.randn(shape, device=device) + 0.5).to(case.dtype).contiguous(memory_format=order)
    weights = torch.randn(shape, device=device).to(case.dtype)
    expected, expected_grad, expected_rate = _run(plain, current.float(), case.num_steps, weights.float())
    spikes, grad, rate = _run(fused, current, case.num_steps, weights)
    assert spikes.dtype == grad.dtype == case.dtype
    assert spikes.stride() == current.stride()
    unequal = spikes.float() != expected
    differs = unequal.unflatten(0, (case.num_steps, -1)).any(dim=0)
    agrees = ~differs.repeat(case.num_steps, 1, 1, 1)
    off = ((grad.float() - expected_grad) * agrees).abs().max() / expected_grad.abs().max()
    figures = {"spikes": unequal.numel(), "unequal_spikes": int(unequal.sum()), "gradient_off": float(off)}
    figures["rate_gradient_off"] = abs(rate / expected_rate - 1) if case.settings.learns_tau else 0.0
    return figures


def _scaled(settings: LIFSettings, factor: float) -> LIFSettings:
    return LIFSettings(**(vars(settings) | {"threshold": settings.threshold * factor}))


def _run(layer: LIF, current: Tensor, num_steps: int, weights: Tensor) -> tuple[Tensor, Tensor, float]:
    current = current.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    spikes = layer(current, num_steps)
    spikes.backward(weights)
    assert current.grad is not None
    return spikes.detach(), current.grad, float(layer.rate_logit.grad) if layer.settings.learns_tau else 0.0


def check_network(work: Work, batch: int = 8) -> dict[str, Any]:
    """Logits and gradients of one pass, by ‖a - b‖ / ‖b‖ from the plain neurons in single precision.

    In bf16 the plain neurons round every potential to bf16, the fused ones keep it in single precision. A spike that
    rounding flips changes all that follows, so what bf16 does to the plain network is the measure for the fused one.
    """
    small = Work(**(vars(work) | {"batch": batch}))
    contenders = {
        f"{name} {precision}": _pass(small, backend, precision)
        for precision in ("fp32", "bf16")
        for name, backend in (("plain", "torch"), ("fused", "triton"))
        if backend == "torch" or work.device == "cuda"
    }
    logits, grad = contenders["plain fp32"]
    return {
        name: {"logits": _distance(own_logits, logits), "gradient": _distance(own_grad, grad)}
        for name, (own_logits, own_grad) in contenders.items()
        if name != "plain fp32"
    } | {"plain fp32, again": {"gradient": _distance(_pass(small, "torch", "fp32")[1], grad)}}


def _pass(work: Work, backend: str, precision: str) -> tuple[Tensor, Tensor]:
    step = TrainingStep(work, precision)
    set_lif_backend(step.model, backend)
    with mixed(work.device, precision):
        logits = step.model(*step.clips, "ycc")
    F.cross_entropy(logits.float(), step.labels).backward()
    grads = [parameter.grad.flatten() for parameter in step.model.parameters() if parameter.grad is not None]
    return logits.detach().float(), torch.cat(grads).float()


def _distance(tensor: Tensor, other: Tensor) -> float:
    return float(f"{float((tensor - other).norm() / other.norm()):.3g}")
