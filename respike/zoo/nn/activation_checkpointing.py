"""Activation checkpointing: run a part again in the backward pass and keep less memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_checkpointed(part: Callable[..., Tensor], modules: nn.Module, *inputs: Any) -> Tensor:
    """Call `part(*inputs)`, which runs `modules`, keeping its result alone; the gradient is the same to the bit.

    Batch norms among `modules` take their statistics in once, not again when the part is run again.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), norm_statistics_frozen(modules)

    result: Tensor = checkpoint(part, *inputs, use_reentrant=False, context_fn=contexts)
    return result


@contextmanager
def norm_statistics_frozen(modules: nn.Module) -> Iterator[None]:
    """Let batch norms among `modules` normalise as they do, but take no statistics in."""
    norms = [module for module in modules.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            # a share of 0 leaves the statistics as they are, to the bit
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
