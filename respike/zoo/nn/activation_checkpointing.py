"""Activation checkpointing: run a part again in the backward pass and keep less memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from respike.zoo.nn.modes import norm_statistics_frozen


def run_checkpointed(part: Callable[..., Tensor], modules: nn.Module, *inputs: Any) -> Tensor:
    """Call `part(*inputs)`, which runs `modules`, and keep only its result; gradients are the same to the bit.

    The batch norms among `modules` update their running statistics once, not again in the backward pass.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), norm_statistics_frozen(modules)

    result: Tensor = checkpoint(part, *inputs, use_reentrant=False, context_fn=contexts)
    return result
