"""Measuring: a network run on clips → its MACs by PyTorch's counter, its firing rates → the account.

A layer whose input is spikes accumulates only where one arrives: its operations are its MACs times the measured firing
rate of its input. What a convolution reads of its zero padding counts in either kind, as in the published accounts.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from respike.errors import RespikeError
from respike.sample import Batch
from respike.zoo.energy.account import STEM, EnergyReport, LayerEnergy
from respike.zoo.nn.fusion import plain_attention
from respike.zoo.nn.lif import LIF

_BRANCH_NAMES = {"ann": "ANN", "snn": "SNN", "fusions": "fusion", "head": "head"}


def estimate_energy(model: nn.Module, clips: Batch | Iterable[Batch]) -> EnergyReport:
    """Run `model` on `clips`, a batch or several, which must be of real clips, and account for one clip.

    MACs are counted on the first batch by PyTorch's FLOP counter under plain attention (it sees nothing in the fused
    kind on a CPU); firing rates are means over all clips, rows that `Batch.mask` rules out left out. Convolutions and
    matrix products count; norms, activations, pooling and neurons do not, as in the published account. Batches lie on
    the network's device; the network is left in the mode it was in. Raises RespikeError where there is no clip.
    """
    was_training = model.training
    model.eval()
    macs: dict[str, float] = {}
    num_clips = 0
    try:
        with torch.no_grad(), plain_attention(), _watched(model) as seen:
            for batch in (clips,) if isinstance(clips, Batch) else clips:
                rows = batch.mask
                keys, residuals, num_rows = batch.keys[rows], batch.residuals[rows], int(rows.sum())
                if not num_rows:
                    continue
                num_clips += num_rows
                if macs:
                    model(keys, residuals, batch.color)
                else:
                    macs = _count(model, keys, residuals, batch)
    finally:
        model.train(was_training)
    if not num_clips:
        raise RespikeError("there is no clip to measure firing rates on", "choose a subset that holds clips")
    stem = next((inputs for name, inputs in seen.inputs.items() if name.startswith(STEM)), None)
    return EnergyReport(
        layers=tuple(_account(name, count, seen.inputs.get(name)) for name, count in macs.items() if count),
        stem_event_density=stem.density if stem else None,
        neuron_updates=seen.num_updates / num_clips,
        num_clips=num_clips,
    )


@dataclass
class _Input:
    """What a layer was fed: values and those not zero, and whether it was spikes, zeros and ones alone."""

    num_values: int = 0
    num_nonzero: int = 0
    is_spikes: bool = True

    @property
    def density(self) -> float:
        return self.num_nonzero / self.num_values


@dataclass
class _Seen:
    """What the hooks have seen: the inputs of the spiking branch's convolutions, and steps of single neurons."""

    inputs: dict[str, _Input] = field(default_factory=dict)
    num_updates: int = 0


@contextmanager
def _watched(model: nn.Module) -> Iterator[_Seen]:
    """Watch what the convolutions of the spiking branch are fed, and how many neurons step."""
    seen = _Seen()
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith("snn."):

            def watch(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                values, inputs = args[0], seen.inputs.setdefault(name, _Input())
                inputs.num_values += values.numel()
                inputs.num_nonzero += int(torch.count_nonzero(values))
                # residuals are no spikes, not even where all of them happen to be zero
                inputs.is_spikes &= not name.startswith(STEM) and bool(((values == 0) | (values == 1)).all())

            handles.append(module.register_forward_pre_hook(watch))
        elif isinstance(module, LIF):

            def count(_: nn.Module, args: tuple[Any, ...]) -> None:
                seen.num_updates += args[0].numel()

            handles.append(module.register_forward_pre_hook(count))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _count(model: nn.Module, keys: Tensor, residuals: Tensor, batch: Batch) -> dict[str, float]:
    """MACs of one clip by layer, each layer's own."""
    counter = FlopCounterMode(display=False)
    with counter:
        model(keys, residuals, batch.color)
    return {name: flops / 2 / len(keys) for name, flops in _own_flops(counter.get_flop_counts()).items()}


def _own_flops(counts: dict[str, dict[Any, int]]) -> dict[str, int]:
    """FLOPs of each module without those of its children, which the counter includes."""
    totals = {name: sum(by_operator.values()) for name, by_operator in counts.items() if "." in name}
    own = dict(totals)
    for name, total in totals.items():
        # the nearest module above that was called: a list of blocks, say, is not
        parent = name.rpartition(".")[0]
        while parent and parent not in own:
            parent = parent.rpartition(".")[0]
        if parent:
            own[parent] -= total
    # the counter puts the network's class before each name
    return {name.partition(".")[2]: count for name, count in own.items()}


def _account(name: str, macs: float, seen: _Input | None) -> LayerEnergy:
    branch = _BRANCH_NAMES.get(name.partition(".")[0], "other")
    if seen is not None and seen.is_spikes:
        rate = seen.density
        return LayerEnergy(name=name, branch=branch, macs=0.0, acs=macs * rate, input_rate=rate, most_acs=macs)
    return LayerEnergy(name=name, branch=branch, macs=macs, acs=0.0, input_rate=None)
