"""Modes: how the layers of a network compute for the length of a block, restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode and record no gradients; afterwards each layer has the mode it had before."""
    # layer by layer: a branch may be frozen in evaluation mode while the rest trains
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@contextmanager
def norm_statistics_frozen(modules: nn.Module) -> Iterator[None]:
    """Let the batch norms among `modules` normalise as before, but leave their running statistics unchanged."""
    norms = [module for module in modules.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            # a momentum of 0 leaves the statistics unchanged to the bit
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
