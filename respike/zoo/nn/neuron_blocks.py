"""Neuron blocks: currents in memory order, cut into neurons whose steps fit a cache together."""

from collections.abc import Iterator

import torch
from torch import Tensor

# neurons of a block a thread works on, in elements: three steps of it fit a core's second-level cache
_BLOCK_ELEMENTS = 1 << 16


def blocks(num_steps: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors `[num_steps · G, ...]` of equal strides into views `[num_steps, M]` of the same M neurons each.

    On a CPU M is small enough for all steps of a block to stay in its cache; elsewhere one block holds all.
    """
    flat = [_in_memory_order(tensor).view(num_steps, -1) for tensor in tensors]
    num_neurons = flat[0].shape[1]
    on_cpu = tensors[0].device.type == "cpu"
    size = _BLOCK_ELEMENTS * torch.get_num_threads() if on_cpu else max(num_neurons, 1)
    for start in range(0, num_neurons, size):
        yield tuple(tensor[:, start : start + size] for tensor in flat)


def _in_memory_order(tensor: Tensor) -> Tensor:
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1)
    return tensor


def dense(tensor: Tensor) -> Tensor:
    """Copy a tensor with gaps or of an odd order; leave the two usual orders as they are."""
    in_order = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    return tensor if in_order else tensor.contiguous()
