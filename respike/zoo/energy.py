"""Energy: multiplications, additions and joules of a network, a row a layer."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from respike.common.errors import RespikeError, SettingError
from respike.common.text import suggest
from respike.types import Batch
from respike.zoo.nn.fusion import plain_attention
from respike.zoo.nn.lif import LIF

MAC_JOULES = 4.6e-12
AC_JOULES = 0.9e-12
STEM = "snn.stem"
# MACs, accumulates, joules
Figures: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class LayerEnergy:
    """What one layer does for one clip.

    `macs` counts real-valued multiply-accumulates, `acs` accumulates of spikes; one of the two is 0. `input_rate` is
    the share of inputs that are spikes (None where the input is real-valued), `most_acs` what `acs` would be if every
    input were a spike.
    """

    name: str
    branch: str
    macs: float
    acs: float
    input_rate: float | None
    most_acs: float = 0.0

    @property
    def joules(self) -> float:
        """Energy of the layer for one clip."""
        return self.macs * MAC_JOULES + self.acs * AC_JOULES

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return dataclasses.asdict(self) | {"joules": self.joules}


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """The account of a network for one clip, a row a layer; rates are means over `num_clips` clips.

    `stem_event_density` is the share of the SNN stem's inputs that are not zero: the stem is counted as dense MACs,
    as published; `sparse_stem_joules` is what it would take if zeros cost nothing. `neuron_updates` counts the steps
    of single neurons, which the published account leaves out, and so do `joules`.
    """

    layers: tuple[LayerEnergy, ...]
    stem_event_density: float | None
    neuron_updates: float = 0.0
    num_clips: int = 1

    @property
    def macs(self) -> float:
        """Multiply-accumulates of one clip, the stem dense."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Accumulates of one clip."""
        return sum(layer.acs for layer in self.layers)

    @property
    def joules(self) -> float:
        """Energy of one clip, the stem dense."""
        return sum(layer.joules for layer in self.layers)

    @property
    def sparse_stem_joules(self) -> float:
        """Energy of one clip, the stem by the density of its input."""
        saved = 1 - (1.0 if self.stem_event_density is None else self.stem_event_density)
        return self.joules - saved * sum(layer.joules for layer in self.layers if layer.name.startswith(STEM))

    @property
    def most_joules(self) -> float:
        """What one clip would take if every neuron fired at every step: no weights and no clip can take more."""
        return self.macs * MAC_JOULES + sum(layer.most_acs for layer in self.layers) * AC_JOULES

    @property
    def neuron_joules(self) -> float:
        """What the neurons' own updates would add at one MAC each: the leak is a product."""
        return self.neuron_updates * MAC_JOULES

    def by_branch(self) -> dict[str, Figures]:
        """(MACs, ACs, joules) of each branch, in the order of the layers."""
        totals: dict[str, Figures] = {}
        for layer in self.layers:
            totals[layer.branch] = _add(totals.get(layer.branch), layer)
        return totals

    def by_part(self) -> dict[str, dict[str, Figures]]:
        """(MACs, ACs, joules) of each stage of each branch, such as `snn.stages.0`, in the order of the layers."""
        parts: dict[str, dict[str, Figures]] = {}
        for layer in self.layers:
            branch = parts.setdefault(layer.branch, {})
            name = _part_of(layer.name)
            branch[name] = _add(branch.get(name), layer)
        return parts

    def to_json(self) -> dict[str, Any]:
        """The account as `respike energy --json` prints it."""
        return {
            "num_clips": self.num_clips,
            "macs": self.macs,
            "acs": self.acs,
            "joules": self.joules,
            "most_joules": self.most_joules,
            "sparse_stem_joules": self.sparse_stem_joules,
            "stem_event_density": self.stem_event_density,
            "neuron_updates": self.neuron_updates,
            "neuron_joules": self.neuron_joules,
            "branches": {
                name: dict(zip(("macs", "acs", "joules"), figures, strict=True))
                for name, figures in self.by_branch().items()
            },
            "layers": [layer.to_json() for layer in self.layers],
        }


def _add(figures: Figures | None, layer: LayerEnergy) -> Figures:
    macs, acs, joules = figures or (0.0, 0.0, 0.0)
    return macs + layer.macs, acs + layer.acs, joules + layer.joules


def _part_of(name: str) -> str:
    """The stage that a layer is in: `layer1` of `ann.layer1.0.conv1`, `stages.0` of `snn.stages.0.blocks.1.conv1`."""
    words = name.split(".")
    is_numbered = len(words) > 1 and words[1][-1].isdigit()
    return ".".join(words[:2] if is_numbered or len(words) < 3 or not words[2].isdigit() else words[:3])


@dataclass(frozen=True, kw_only=True)
class BaselineEnergy:
    """What a video network does for one clip of `num_frames` RGB frames of `image_size` × `image_size` pixels."""

    name: str
    num_frames: int
    image_size: int
    macs: float
    num_parameters: int

    @property
    def joules(self) -> float:
        """Energy of one clip; every operation is a multiply-accumulate."""
        return self.macs * MAC_JOULES

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {
            "name": self.name,
            "num_frames": self.num_frames,
            "image_size": self.image_size,
            "macs": self.macs,
            "num_parameters": self.num_parameters,
            "joules": self.joules,
        }


def list_baselines() -> list[str]:
    """The names that `estimate_baseline` takes: torchvision's video networks."""
    return sorted(torchvision.models.list_models(module=torchvision.models.video))


def estimate_baseline(name: str, *, num_frames: int, image_size: int) -> BaselineEnergy:
    """Count the multiply-accumulates of a torchvision video network with 400 classes, in the way of `estimate_energy`.

    Nothing is computed: tensors have shapes alone. Raises SettingError that lists the names, or says which size the
    network does not take.
    """
    if name not in (names := list_baselines()):
        raise SettingError(f"torchvision has no video network {name!r}", suggest(name, names))
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None).eval()
        clip = torch.empty(1, 3, num_frames, image_size, image_size)
    try:
        with torch.no_grad(), plain_attention(), counter:
            network(clip)
    except (RuntimeError, ValueError, IndexError) as error:
        raise SettingError(
            f"{name} does not take {num_frames} frames of {image_size}×{image_size}",
            "leave it out, or compare at another size",
        ) from error
    return BaselineEnergy(
        name=name,
        num_frames=num_frames,
        image_size=image_size,
        macs=counter.get_total_flops() / 2,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


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
