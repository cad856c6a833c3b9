"""The modes of a network's layers, before, during and after something is measured."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def mix_modes(model: nn.Module) -> dict[str, bool]:
    """Let one branch of a network rest in evaluation mode and the others train; return each layer's mode."""
    model.train()
    next(iter(model.children())).eval()
    return modes_of(model)


def modes_of(model: nn.Module) -> dict[str, bool]:
    """Whether each layer is in training mode."""
    return {name: module.training for name, module in model.named_modules()}


@contextmanager
def modes_seen(model: nn.Module) -> Iterator[set[bool]]:
    """Gather whether layers were in training mode when they were called."""
    seen: set[bool] = set()
    handles = [
        module.register_forward_pre_hook(lambda module, _: seen.add(module.training)) for module in model.modules()
    ]
    yield seen
    for handle in handles:
        handle.remove()
