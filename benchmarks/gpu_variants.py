"""Variants of a training step that may be faster or need less memory. Each is one or more changes to the plain step.

The network always has channels-last tensors, time folded into the batch, and one fusion for all steps of a group.
"""

from collections.abc import Callable

import torch
from respike.zoo.nn.lif import set_lif_backend

from gpu_step import TrainingStep

# changes a step; returns the function to call for one update
Change = Callable[[TrainingStep], Callable[[], None]]


def plain(step: TrainingStep) -> Callable[[], None]:
    """Change nothing."""
    return step


def contiguous(step: TrainingStep) -> Callable[[], None]:
    """Use the default memory format of torch instead of channels last."""
    step.model.to(memory_format=torch.contiguous_format)
    for first in (step.model.snn.stem, step.model.ann):
        first.register_forward_pre_hook(lambda _, arguments: (arguments[0].contiguous(),))
    return step


def fused_lif(step: TrainingStep) -> Callable[[], None]:
    """Compute the neurons in one Triton kernel."""
    _require_cuda(step)
    set_lif_backend(step.model, "triton")
    return step


def cudnn_benchmark(step: TrainingStep) -> Callable[[], None]:
    """Let cuDNN measure its algorithms in the first step and use the fastest."""
    _require_cuda(step)
    torch.backends.cudnn.benchmark = True
    return step


def checkpointing(step: TrainingStep) -> Callable[[], None]:
    """Use gradient checkpointing in the spiking branch."""
    assert hasattr(step.model, "uses_activation_checkpointing"), "the model has no such switch"
    step.model.uses_activation_checkpointing = True
    return step


def compiled(backend: str, mode: str | None = None) -> Change:
    """Compile the network with torch.compile."""

    def compile_network(step: TrainingStep) -> Callable[[], None]:
        step.model.compile(backend=backend, mode=mode, dynamic=False)
        return step

    return compile_network


def cuda_graph(step: TrainingStep) -> Callable[[], None]:
    """Capture the complete update as a CUDA graph and replay it."""
    _require_cuda(step)
    step.autocast_cache = False
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    step.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step.forward_backward()
        step.optimizer.step()

    def replay() -> None:
        # the graph holds only addresses, so this reference keeps the tensors alive
        assert step.clips
        graph.replay()

    return replay


def combined(*changes: Change) -> Change:
    """Apply several changes. The function that the last one returns is called."""

    def apply(step: TrainingStep) -> Callable[[], None]:
        runs = [change(step) for change in changes]
        return runs[-1]

    return apply


def make_variants(compile_backend: str) -> dict[str, dict[str, Change]]:
    """Return the variants by part and name. The first one of a part is the plain step.

    A failed capture of a CUDA graph can break the process, and compiling takes minutes, so they are separate parts.
    """
    return {
        "variants": {
            "plain": plain,
            "contiguous": contiguous,
            "fused LIF": fused_lif,
            "cuDNN benchmark": cudnn_benchmark,
            "checkpointing": checkpointing,
            "fused LIF + cuDNN benchmark": combined(fused_lif, cudnn_benchmark),
            "plain again": plain,
        },
        "graphs": {
            "plain": plain,
            "CUDA graph": cuda_graph,
            "fused LIF + cuDNN benchmark + graph": combined(fused_lif, cudnn_benchmark, cuda_graph),
        },
        "compile": {"plain": plain, "fused LIF + compile": combined(fused_lif, compiled(compile_backend))},
    }


def reset_torch() -> None:
    """Undo changes to the global state of torch."""
    torch.backends.cudnn.benchmark = False
    torch._dynamo.reset()


def _require_cuda(step: TrainingStep) -> None:
    if step.work.device != "cuda":
        raise RuntimeError(f"needs CUDA, the device is {step.work.device}")
