"""Energy: what a network computes on a batch → operations → joules, a row a layer.

45 nm CMOS, 32-bit float: a multiply-accumulate (MAC) 4.6 pJ, an accumulate (AC) 0.9 pJ. A layer whose input is spikes
accumulates only where one arrives: its operations are its MACs times the measured firing rate of its input.
Source: Horowitz, Computing's energy problem, ISSCC 2014; arXiv 2409.01564, section 4.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from respike.sample import Batch
from respike.zoo.nn.fusion import plain_attention

MAC_JOULES = 4.6e-12
AC_JOULES = 0.9e-12
_BRANCH_NAMES = {"ann": "ANN", "snn": "SNN", "fusions": "fusion", "head": "head"}


@dataclass(frozen=True, kw_only=True)
class LayerEnergy:
    """What one layer does for one clip.

    `macs` counts real-valued multiply-accumulates, `acs` accumulates of spikes; one of the two is 0. `input_rate` is
    the share of inputs that are spikes (None where the input is real-valued).
    """

    name: str
    branch: str
    macs: float
    acs: float
    input_rate: float | None

    @property
    def joules(self) -> float:
        """Energy of the layer for one clip."""
        return self.macs * MAC_JOULES + self.acs * AC_JOULES


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """The account of a network for one clip, a row a layer.

    `stem_event_density` is the share of the SNN stem's inputs that are not zero: the stem is counted as dense MACs,
    as published; `sparse_stem_joules` is what it would take if zeros cost nothing.
    """

    layers: tuple[LayerEnergy, ...]
    stem_event_density: float | None

    @property
    def joules(self) -> float:
        """Energy of one clip, the stem dense."""
        return sum(layer.joules for layer in self.layers)

    @property
    def sparse_stem_joules(self) -> float:
        """Energy of one clip, the stem by the density of its input."""
        saved = 1 - (1.0 if self.stem_event_density is None else self.stem_event_density)
        return self.joules - saved * sum(layer.joules for layer in self.layers if layer.name.startswith("snn.stem"))

    def by_branch(self) -> dict[str, tuple[float, float, float]]:
        """(MACs, ACs, joules) of each branch, in the order of the layers."""
        totals: dict[str, tuple[float, float, float]] = {}
        for layer in self.layers:
            macs, acs, joules = totals.get(layer.branch, (0.0, 0.0, 0.0))
            totals[layer.branch] = (macs + layer.macs, acs + layer.acs, joules + layer.joules)
        return totals


def estimate_energy(model: nn.Module, batch: Batch) -> EnergyReport:
    """Run `model` once on `batch`, which must be of real clips, and account for one of its clips.

    MACs are counted by PyTorch's FLOP counter under plain attention (it sees nothing in the fused kind on a CPU),
    firing rates are measured in the run. Convolutions and matrix products count; norms, activations and pooling do
    not, as in the published account. The network is left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), plain_attention(), _measured_inputs(model) as inputs, counter:
            model(batch.keys, batch.residuals, batch.color)
    finally:
        model.train(was_training)
    flops = _own_flops(counter.get_flop_counts())
    layers = [_account(name, count / 2 / len(batch), inputs.get(name)) for name, count in flops.items() if count]
    stem = next((seen for name, seen in inputs.items() if name.startswith("snn.stem")), None)
    return EnergyReport(layers=tuple(layers), stem_event_density=stem.density if stem else None)


@dataclass(frozen=True)
class _Input:
    """What a layer was fed: the share that is not zero, and whether it was spikes, zeros and ones alone."""

    density: float
    is_spikes: bool


@contextmanager
def _measured_inputs(model: nn.Module) -> Iterator[dict[str, _Input]]:
    """Watch what the convolutions of the spiking branch are fed."""
    inputs: dict[str, _Input] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith("snn."):

            def watch(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                seen = args[0]
                # residuals are no spikes, not even where all of them happen to be zero
                is_spikes = not name.startswith("snn.stem") and bool(((seen == 0) | (seen == 1)).all())
                inputs[name] = _Input(density=float((seen != 0).float().mean()), is_spikes=is_spikes)

            handles.append(module.register_forward_pre_hook(watch))
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


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
        return LayerEnergy(name=name, branch=branch, macs=0.0, acs=macs * seen.density, input_rate=seen.density)
    return LayerEnergy(name=name, branch=branch, macs=macs, acs=0.0, input_rate=None)
