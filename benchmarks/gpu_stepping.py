"""Time and memory of the network compared with the same network computed step by step, both in mixed precision."""

from functools import partial
from typing import Any

import torch
from respike.zoo.nn.lif import set_lif_backend
from torch import nn

import harness
from gpu_step import TrainingStep, Work, finish, mixed
from stepping import SteppingReSpike


def compare_with_stepping(work: Work, title: str, rounds: int) -> dict[str, Any]:
    """Measure `forward` in evaluation mode, or `forward and backward` in training mode, for a batch.

    Each variant has its own copy of the same weights. The stepping network runs with tensors in the default memory
    format of torch, and again in channels-last format.
    """
    run = forward if title == "forward" else forward_backward
    variants = {name: partial(run, step) for name, step in make_steps(work).items()}
    memory = {name: {"GB": peak_gb(call)} for name, call in variants.items()} if work.device == "cuda" else {}
    return harness.compare(
        f"{work.model} {title}, bf16",
        variants,
        baseline="stepping",
        rounds=min(rounds, 5),
        unit="batch",
        facts=vars(work),
        extras=memory,
    )


def make_steps(work: Work) -> dict[str, TrainingStep]:
    """Return a training step for each variant."""
    contiguous = TrainingStep(work)
    contiguous.model.to(memory_format=torch.contiguous_format)
    channels_last = TrainingStep(work)
    steps = {"respike": TrainingStep(work)}
    if work.device == "cuda":
        steps["respike, fused LIF"] = TrainingStep(work)
        set_lif_backend(steps["respike, fused LIF"].model, "triton")
    steps |= {"stepping": contiguous, "stepping, channels last": channels_last}
    for step in (contiguous, channels_last):
        step.network = SteppingReSpike(step.model)
    return steps


def forward(step: TrainingStep) -> None:
    """Compute the logits of the clips."""
    network: nn.Module = step.network.eval()
    with torch.inference_mode(), mixed(step.work.device, step.precision):
        network(*step.clips, "ycc")
    finish(step.work.device)


def forward_backward(step: TrainingStep) -> None:
    """Compute forward and backward of the clips."""
    step.network.train()
    step.model.zero_grad(set_to_none=True)
    step.forward_backward()
    finish(step.work.device)


def peak_gb(call: partial[None]) -> float:
    """Return the peak memory of a call in GB, minus the memory held before."""
    call()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return round((torch.cuda.max_memory_allocated() - before) / 1e9, 2)
