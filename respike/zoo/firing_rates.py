"""Firing rates: how often each spiking layer fires, and which layers are dead or saturated."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from respike.types import Batch
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.modes import norm_statistics_frozen

# below, neurons fire less than once in a thousand steps and pass almost nothing on; above, nearly a constant
DEAD_BELOW = 0.001
SATURATED_ABOVE = 0.95


def measure_firing_rates(model: nn.Module, batch: Batch) -> dict[str, float]:
    """Return the share of neurons and steps that fire, 0 to 1, for each spiking layer on one batch.

    Layers compute in their present mode. Neither the network nor the state of torch's random generators changes.
    """
    rates: dict[str, float] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, LIF):

            def measure(_: nn.Module, __: object, spikes: Tensor, name: str = name) -> None:
                rates[name] = float(spikes.float().mean())

            handles.append(module.register_forward_hook(measure))
    devices = [batch.keys.device] if batch.keys.device.type == "cuda" else []
    try:
        # dropout draws random numbers
        with torch.no_grad(), norm_statistics_frozen(model), torch.random.fork_rng(devices=devices):
            # not model(...): a network under torch.compile would not run the hooks
            model.forward(batch.keys, batch.residuals, batch.color)
    finally:
        for handle in handles:
            handle.remove()
    return rates


def describe_abnormal_layers(rates: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """Return a message for each layer that is dead or saturated in `rates` and was not so in `before`."""
    return [
        f"the spiking layer {name} {state}: {rate:.2%} of its neurons fire in a step"
        for name, rate in rates.items()
        if (state := _state(rate)) and state != _state(before.get(name))
    ]


def _state(rate: float | None) -> str:
    if rate is None or DEAD_BELOW <= rate <= SATURATED_ABOVE:
        return ""
    return "is dead" if rate < DEAD_BELOW else "is saturated"
