"""Levers: what may make a training step faster or smaller, each a change to a step that is otherwise as it comes.

Already so in the network, and no lever: channels last, time folded into the batch, one fusion for all steps of a group.
"""

from collections.abc import Callable

import torch
from respike.zoo.nn.lif import set_lif_backend

from gpu_step import TrainingStep

# changes a step; returns what is then called for one update
Lever = Callable[[TrainingStep], Callable[[], None]]


def leave(step: TrainingStep) -> Callable[[], None]:
    """Change nothing."""
    return step


def reorder(step: TrainingStep) -> Callable[[], None]:
    """Tensors in torch's usual order instead of channels last."""
    step.model.to(memory_format=torch.contiguous_format)
    for first in (step.model.snn.stem, step.model.ann):
        first.register_forward_pre_hook(lambda _, arguments: (arguments[0].contiguous(),))
    return step


def fuse(step: TrainingStep) -> Callable[[], None]:
    """Neurons in one kernel."""
    _need_cuda(step)
    set_lif_backend(step.model, "triton")
    return step


def let_cudnn_try(step: TrainingStep) -> Callable[[], None]:
    """Let cuDNN time its algorithms on the first step and keep the fastest."""
    _need_cuda(step)
    torch.backends.cudnn.benchmark = True
    return step


def recompute(step: TrainingStep) -> Callable[[], None]:
    """Gradient checkpointing in the spiking branch."""
    step.model.recomputes = True
    return step


def compile_by(backend: str, mode: str | None = None) -> Lever:
    """Run the network through torch.compile."""

    def compile_network(step: TrainingStep) -> Callable[[], None]:
        step.model.compile(backend=backend, mode=mode, dynamic=False)
        return step

    return compile_network


def capture(step: TrainingStep) -> Callable[[], None]:
    """Record the whole update as a CUDA graph and replay it."""
    _need_cuda(step)
    step.keeps_casts = False
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    step.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step.go_back()
        step.optimizer.step()

    def replay() -> None:
        # the graph knows addresses alone: it must not outlive what lies there
        assert step.clips
        graph.replay()

    return replay


def both(*levers: Lever) -> Lever:
    """Several levers, the last of which says what is called."""

    def pull(step: TrainingStep) -> Callable[[], None]:
        runs = [lever(step) for lever in levers]
        return runs[-1]

    return pull


def all_levers(compile_backend: str) -> dict[str, dict[str, Lever]]:
    """The levers by part and name; the first of a part changes nothing.

    A graph that cannot be captured leaves the process in a bad way, and a compiler takes minutes: parts of their own.
    """
    return {
        "levers": {
            "plain": leave,
            "torch's order": reorder,
            "fused LIF": fuse,
            "cuDNN tries": let_cudnn_try,
            "checkpointing": recompute,
            "fused LIF + cuDNN tries": both(fuse, let_cudnn_try),
            "plain again": leave,
        },
        "graphs": {
            "plain": leave,
            "CUDA graph": capture,
            "fused LIF + cuDNN tries + graph": both(fuse, let_cudnn_try, capture),
        },
        "compile": {"plain": leave, "fused LIF + compile": both(fuse, compile_by(compile_backend))},
    }


def put_back() -> None:
    """Undo what a lever changed outside its step."""
    torch.backends.cudnn.benchmark = False
    torch._dynamo.reset()


def _need_cuda(step: TrainingStep) -> None:
    if step.work.device != "cuda":
        raise RuntimeError(f"works on CUDA alone, not on {step.work.device}")
