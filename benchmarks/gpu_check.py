"""Compares the fused neurons with the plain ones on a GPU: spikes and gradients, of one layer and of the network.

Each case compiles two kernels. The plain neurons compute in single precision from the same input currents.
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

# largest error of a gradient, relative to the largest gradient; for bf16 and fp16 one unit in the last place
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}
# share of spikes that may differ, where rounding moves a potential over the threshold
MAX_UNEQUAL = 1e-4
STEPS = (3, 1, 7, 15, 32)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Settings of the neurons, and of their input current `[num_steps · 5, 33, 7, 9]`."""

    settings: LIFSettings
    num_steps: int
    dtype: torch.dtype
    is_channels_last: bool


def make_cases() -> Iterator[Case]:
    """Yield all combinations of reset, fixed or learned τ, and number of steps. Other properties alternate."""
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
    # the neurons of the published network, in each dtype
    for dtype in dtypes:
        yield Case(settings=LIFSettings(), num_steps=3, dtype=dtype, is_channels_last=True)


def check_neurons(device: str, seconds: float = 60.0) -> dict[str, Any]:
    """Compare the fused layer with the plain one in each case, for at most `seconds`; return the figures."""
    started, found, num_skipped = time.perf_counter(), [], 0
    for case in make_cases():
        if time.perf_counter() - started > seconds:
            num_skipped += 1
        else:
            found.append((case, compare(case, device)))
    wrong = [f"{case}: {figures}" for case, figures in found if not is_equal(case, figures)]
    control = compare(
        Case(settings=LIFSettings(), num_steps=3, dtype=torch.float32, is_channels_last=True), device, 0.9
    )
    return {
        "cases": len(found),
        "cases_skipped": num_skipped,
        "wrong": wrong,
        "unequal_spikes": sum(figures["unequal_spikes"] for _, figures in found),
        "spikes": sum(figures["spikes"] for _, figures in found),
        **{
            f"gradient_error_{str(dtype).removeprefix('torch.')}": max(
                (figures["gradient_error"] for case, figures in found if case.dtype == dtype), default=None
            )
            for dtype in TOLERANCES
        },
        "tau_gradient_error": max((figures["tau_gradient_error"] for _, figures in found), default=None),
        "detects_another_threshold": control["unequal_spikes"] > 0.001 * control["spikes"],
        "check_s": round(time.perf_counter() - started, 1),
    }


def is_equal(case: Case, figures: dict[str, float]) -> bool:
    """Return whether both agree within rounding."""
    is_same = figures["unequal_spikes"] <= MAX_UNEQUAL * figures["spikes"]
    return is_same and figures["gradient_error"] <= TOLERANCES[case.dtype] and figures["tau_gradient_error"] <= 2e-3


def compare(case: Case, device: str, factor: float = 1.0) -> dict[str, float]:
    """Return the differences between plain and fused neurons.

    Gradients are compared where the spikes agree in every step; their error is relative to the largest gradient. With a
    `factor` other than 1 the fused neurons get another threshold, which the comparison must detect.
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
    error = ((grad.float() - expected_grad) * agrees).abs().max() / expected_grad.abs().max()
    figures = {"spikes": unequal.numel(), "unequal_spikes": int(unequal.sum()), "gradient_error": float(error)}
    figures["tau_gradient_error"] = abs(rate / expected_rate - 1) if case.settings.learns_tau else 0.0
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
    """Return the distance ‖a - b‖ / ‖b‖ of logits and gradients to those of plain neurons in single precision.

    In bf16 the plain neurons round every potential to bf16, the fused ones keep it in single precision. A spike that
    rounding changes also changes all later layers. So compare the fused network with the plain network in bf16.
    """
    small = Work(**(vars(work) | {"batch": batch}))
    passes = {
        f"{name} {precision}": _pass(small, backend, precision)
        for precision in ("fp32", "bf16")
        for name, backend in (("plain", "torch"), ("fused", "triton"))
        if backend == "torch" or work.device == "cuda"
    }
    logits, grad = passes["plain fp32"]
    return {
        name: {"logits": _distance(own_logits, logits), "gradient": _distance(own_grad, grad)}
        for name, (own_logits, own_grad) in passes.items()
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
