"""Firing: how often each layer of spiking neurons fires, and which layers are dead or always on."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from respike.sample import Batch
from respike.zoo.nn.lif import LIF

# a neuron that fires less than once in a thousand steps passes next to nothing on; one that always fires, a constant
DEAD_BELOW = 0.001
SATURATED_ABOVE = 0.95


def measure_firing_rates(model: nn.Module, batch: Batch) -> dict[str, float]:
    """Return the share of neurons and steps that fire, 0 to 1, by layer, on one batch, as the network is scored.

    The network is left in the mode it was in; nothing in it changes.
    """
    rates: dict[str, float] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, LIF):

            def watch(_: nn.Module, __: object, spikes: Tensor, name: str = name) -> None:
                rates[name] = float(spikes.float().mean())

            handles.append(module.register_forward_hook(watch))
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            # past torch.compile, which would not see the hooks
            model.forward(batch.keys, batch.residuals, batch.color)
    finally:
        for handle in handles:
            handle.remove()
        for module, is_training in was_training.items():
            module.training = is_training
    return rates


def find_silent_layers(rates: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """Say of each layer that has just fallen silent or begun to fire always what its rate is."""
    told = []
    for name, rate in rates.items():
        if (fate := _fate(rate)) and fate != _fate(before.get(name)):
            told.append(f"the spiking layer {name} {fate}: {rate:.2%} of its neurons fire a step")
    return told


def _fate(rate: float | None) -> str:
    if rate is None or DEAD_BELOW <= rate <= SATURATED_ABOVE:
        return ""
    return "is dead" if rate < DEAD_BELOW else "is saturated"
