"""Evaluating: a network in evaluation mode for a while, without gradients, and then as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode and record no gradients; afterwards each layer has the mode it had before."""
    # layer by layer: a network may hold a part of itself still while the rest trains
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, is_training in modes:
            module.training = is_training
