"""The network against itself run step by step in time, both in mixed precision: time and memory."""

from functools import partial
from typing import Any

import torch
from respike.zoo.nn.lif import set_lif_backend
from torch import nn

import harness
from gpu_step import TrainingStep, Work, finish, mixed
from stepping import SteppingReSpike


def compare_with_stepping(work: Work, title: str, rounds: int) -> dict[str, Any]:
    """Run `forward` in evaluation, or `forward and backward` in training, in turns.

    The contenders have weights of their own, equal ones. The stepping network has its tensors in torch's usual order,
    as such code does, and once more channels last. Figures are those of a batch.
    """
    run = forward if title == "forward" else go_back
    contenders = {name: partial(run, step) for name, step in make_steps(work).items()}
    memory = {name: {"GB": peak_gb(call)} for name, call in contenders.items()} if work.device == "cuda" else {}
    return harness.compare(
        f"{work.model} {title}, bf16",
        contenders,
        baseline="stepping",
        rounds=min(rounds, 5),
        unit="batch",
        facts=vars(work),
        extras=memory,
    )


def make_steps(work: Work) -> dict[str, TrainingStep]:
    """The contenders."""
    usual = TrainingStep(work)
    usual.model.to(memory_format=torch.contiguous_format)
    last = TrainingStep(work)
    steps = {"respike": TrainingStep(work)}
    if work.device == "cuda":
        steps["respike, fused LIF"] = TrainingStep(work)
        set_lif_backend(steps["respike, fused LIF"].model, "triton")
    steps |= {"stepping": usual, "stepping, channels last": last}
    for step in (usual, last):
        step.network = SteppingReSpike(step.model)
    return steps


def forward(step: TrainingStep) -> None:
    """Answer the clips."""
    network: nn.Module = step.network.eval()
    with torch.inference_mode(), mixed(step.work.device, step.precision):
        network(*step.clips, "ycc")
    finish(step.work.device)


def go_back(step: TrainingStep) -> None:
    """Forward and backward."""
    step.network.train()
    step.model.zero_grad(set_to_none=True)
    step.go_back()
    finish(step.work.device)


def peak_gb(call: partial[None]) -> float:
    """The most that torch held at a time, beyond what stays."""
    call()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return round((torch.cuda.max_memory_allocated() - before) / 1e9, 2)
