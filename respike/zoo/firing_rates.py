"""Firing rates: how often each spiking layer fires, and which layers are silent or saturated."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from respike.types import Batch
from respike.zoo.nn.activation_checkpointing import norm_statistics_frozen
from respike.zoo.nn.lif import LIF

# a neuron that fires less than once in a thousand steps passes next to nothing on; one that always fires, a constant
DEAD_BELOW = 0.001
SATURATED_ABOVE = 0.95


def measure_firing_rates(model: nn.Module, batch: Batch) -> dict[str, float]:
    """Return the share of neurons and steps that fire, 0 to 1, by layer, on one batch, in the network's present mode.

    Nothing in the network changes, nor where the generators stand.
    """
    rates: dict[str, float] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, LIF):

            def watch(_: nn.Module, __: object, spikes: Tensor, name: str = name) -> None:
                rates[name] = float(spikes.float().mean())

            handles.append(module.register_forward_hook(watch))
    try:
        # what dropout draws is put back
        with torch.no_grad(), norm_statistics_frozen(model), torch.random.fork_rng(devices=_devices(batch)):
            # past torch.compile, which would not see the hooks
            model.forward(batch.keys, batch.residuals, batch.color)
    finally:
        for handle in handles:
            handle.remove()
    return rates


def _devices(batch: Batch) -> list[torch.device]:
    return [batch.keys.device] if batch.keys.device.type == "cuda" else []


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
