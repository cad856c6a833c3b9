"""Modes: how the layers of a network compute for the length of a block, restored afterwards."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


def find_single_value_norm(model: nn.Module, *inputs: Any) -> str | None:
    """Return the name of the first batch norm that gets a single value a channel in training; None if all get more.

    A single value is its own mean, so that torch refuses to train with it. `inputs` are on the device `meta`: shapes
    are followed, but nothing is computed.
    """
    followed = copy.deepcopy(model).to("meta").train()
    reached: list[str] = []
    for name, module in followed.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(lambda _, __, name=name: reached.append(name))
    try:
        with torch.no_grad():
            followed(*inputs)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return reached[-1]
    return None


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
