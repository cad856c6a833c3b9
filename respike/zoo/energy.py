"""Energy: operations and joules of a network for one clip, a row for each layer.

The count is the published one: 45 nm CMOS, 32-bit floating point, 4.6 pJ for a multiply-accumulate (MAC) and 0.9 pJ for
an accumulate (AC). Source: Horowitz, ISSCC 2014. A layer whose inputs are spikes needs only accumulates, one for each
spike and weight. Convolutions and matrix products count; norms, activations, pooling and neurons do not.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from respike.common.config import to_plain
from respike.common.errors import RespikeError, SettingError
from respike.common.text import suggest
from respike.types import Batch
from respike.zoo.nn.fusion import plain_attention
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.modes import eval_mode

MAC_JOULES = 4.6e-12
AC_JOULES = 0.9e-12
STEM = "snn.stem"
_SNN, _SHORTCUT = "snn.", ".shortcut."
_KEYS_VALUES = (".cross_attention.key", ".cross_attention.value")
_BRANCH_NAMES = {"ann": "ANN", "snn": "SNN", "fusions": "fusion", "head": "head"}
# MACs, accumulates, joules
Figures: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class LayerEnergy:
    """The operations of one layer for one clip.

    `macs` counts multiply-accumulates of real values, `acs` accumulates of spikes; one of the two is 0. `input_rate` is
    the share of inputs that are spikes, from 0 to 1, or None where inputs are real values. `most_acs` is what `acs`
    would be if every input were a spike.
    """

    name: str
    branch: str
    macs: float
    acs: float
    input_rate: float | None
    most_acs: float = 0.0

    @property
    def joules(self) -> float:
        """Energy for one clip."""
        return self.macs * MAC_JOULES + self.acs * AC_JOULES


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """The energy of a network for one clip, a row for each layer; firing rates are means over `num_clips` clips.

    `stem_event_density` is the share of the SNN stem's inputs that are not zero, from 0 to 1, or None without a stem.
    The stem counts as dense MACs, as published. `neuron_updates` counts the steps of single neurons. The published
    count and `joules` leave them out. `repeated_kv_macs` is what a network adds that computes the keys and values of
    the cross-attention at every step, as the published code does; ours computes them once a group.
    """

    layers: tuple[LayerEnergy, ...]
    stem_event_density: float | None
    neuron_updates: float = 0.0
    repeated_kv_macs: float = 0.0
    num_clips: int = 1

    @property
    def macs(self) -> float:
        """Multiply-accumulates, the stem dense."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Accumulates."""
        return sum(layer.acs for layer in self.layers)

    @property
    def joules(self) -> float:
        """Energy, the stem dense."""
        return sum(layer.joules for layer in self.layers)

    @property
    def sparse_stem_joules(self) -> float:
        """Energy if the zeros of the stem's input cost nothing."""
        saved = 1 - (1.0 if self.stem_event_density is None else self.stem_event_density)
        return self.joules - saved * sum(layer.joules for layer in self.layers if layer.name.startswith(STEM))

    @property
    def repeated_kv_joules(self) -> float:
        """Energy if keys and values were computed at every step."""
        return self.joules + self.repeated_kv_macs * MAC_JOULES

    @property
    def most_joules(self) -> float:
        """Energy if every neuron fired at every step: an upper bound for all weights and clips."""
        return self.macs * MAC_JOULES + sum(layer.most_acs for layer in self.layers) * AC_JOULES

    @property
    def neuron_joules(self) -> float:
        """Energy of the neurons' updates at one MAC each, since the leak is a product."""
        return self.neuron_updates * MAC_JOULES

    def by_branch(self) -> dict[str, Figures]:
        """Return (MACs, ACs, joules) of each branch, in the order of the layers."""
        totals: dict[str, Figures] = {}
        for layer in self.layers:
            totals[layer.branch] = _add(totals.get(layer.branch), layer)
        return totals

    def by_part(self) -> dict[str, dict[str, Figures]]:
        """Return (MACs, ACs, joules) of each part of each branch, such as `snn.stages.0`, in order."""
        parts: dict[str, dict[str, Figures]] = {}
        for layer in self.layers:
            branch = parts.setdefault(layer.branch, {})
            name = _part_of(layer.name)
            branch[name] = _add(branch.get(name), layer)
        return parts

    def to_json(self) -> dict[str, Any]:
        """The report as `respike energy --json` prints it."""
        names = ("macs", "acs", "joules")
        return {
            "num_clips": self.num_clips,
            "macs": self.macs,
            "acs": self.acs,
            "joules": self.joules,
            "most_joules": self.most_joules,
            "sparse_stem_joules": self.sparse_stem_joules,
            "stem_event_density": self.stem_event_density,
            "repeated_kv_macs": self.repeated_kv_macs,
            "repeated_kv_joules": self.repeated_kv_joules,
            "neuron_updates": self.neuron_updates,
            "neuron_joules": self.neuron_joules,
            "branches": {name: dict(zip(names, each, strict=True)) for name, each in self.by_branch().items()},
            "layers": [to_plain(layer) | {"joules": layer.joules} for layer in self.layers],
        }


def _add(figures: Figures | None, layer: LayerEnergy) -> Figures:
    macs, acs, joules = figures or (0.0, 0.0, 0.0)
    return macs + layer.macs, acs + layer.acs, joules + layer.joules


def _part_of(name: str) -> str:
    """The part that a layer is in: `ann.layer1` of `ann.layer1.0.conv1`, `snn.stages.0` of `snn.stages.0.blocks.1`."""
    words = name.split(".")
    is_numbered = len(words) > 1 and words[1][-1].isdigit()
    return ".".join(words[:2] if is_numbered or len(words) < 3 or not words[2].isdigit() else words[:3])


def estimate_energy(model: nn.Module, clips: Batch | Iterable[Batch]) -> EnergyReport:
    """Run `model` on `clips`, one batch or several, and return its energy for one clip.

    The clips must be real ones, since the energy depends on how often neurons fire. MACs are counted on the first batch
    by PyTorch's FLOP counter, without fused attention, which it does not see on a CPU. Firing rates are means
    over all clips, except rows that `Batch.mask` rules out. Batches are on the network's device. The network computes
    in evaluation mode; afterwards each layer has its mode from before. Raises RespikeError where there is no clip.
    """
    macs: dict[str, float] = {}
    num_clips, num_steps = 0, 1
    with eval_mode(model), plain_attention(), _inputs_watched(model) as seen:
        for batch in (clips,) if isinstance(clips, Batch) else clips:
            keys, residuals = batch.keys[batch.mask], batch.residuals[batch.mask]
            if not len(keys):
                continue
            num_clips += len(keys)
            if macs:
                model(keys, residuals, batch.color)
                continue
            num_steps = residuals.shape[2]
            counter = FlopCounterMode(display=False)
            with counter:
                model(keys, residuals, batch.color)
            flops = _own_flops(counter.get_flop_counts())
            macs = {name: count / 2 / len(keys) for name, count in flops.items()}
    if not num_clips:
        raise RespikeError("there is no clip to measure firing rates on", "choose a subset that holds clips")
    stem = next((inputs for name, inputs in seen.inputs.items() if name.startswith(STEM)), None)
    return EnergyReport(
        layers=tuple(_layer_energy(name, count, seen.inputs.get(name)) for name, count in macs.items() if count),
        stem_event_density=stem.density if stem else None,
        neuron_updates=seen.num_updates / num_clips,
        repeated_kv_macs=(num_steps - 1) * sum(count for name, count in macs.items() if name.endswith(_KEYS_VALUES)),
        num_clips=num_clips,
    )


@dataclass
class _Inputs:
    """The inputs of a layer: how many, and how many are not zero."""

    num_values: int = 0
    num_nonzero: int = 0

    @property
    def density(self) -> float:
        return self.num_nonzero / self.num_values


@dataclass
class _Seen:
    """What the hooks see: the inputs of the spiking branch's convolutions by name, and steps of single neurons."""

    inputs: dict[str, _Inputs] = field(default_factory=dict)
    num_updates: int = 0


@contextmanager
def _inputs_watched(model: nn.Module) -> Iterator[_Seen]:
    """Watch the inputs of the spiking branch's convolutions and the steps of its neurons."""
    seen = _Seen()
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith(_SNN):

            def watch(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                values, inputs = args[0], seen.inputs.setdefault(name, _Inputs())
                inputs.num_values += values.numel()
                inputs.num_nonzero += int(torch.count_nonzero(values))

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


def _own_flops(counts: dict[str, dict[Any, int]]) -> dict[str, int]:
    """Return the FLOPs of each module without those of its children, which the counter includes."""
    totals = {name: sum(by_operator.values()) for name, by_operator in counts.items() if "." in name}
    own = dict(totals)
    for name, total in totals.items():
        # the nearest module above that was called: a ModuleList, for example, is not
        parent = name.rpartition(".")[0]
        while parent and parent not in own:
            parent = parent.rpartition(".")[0]
        if parent:
            own[parent] -= total
    # the counter puts the network's class before each name
    return {name.partition(".")[2]: count for name, count in own.items()}


def _sees_spikes(name: str) -> bool:
    """Whether the layer's inputs are spikes: so in the spiking branch, but not in its stem and its shortcuts.

    The values do not say it: on a clip in which nothing moves, the inputs of a shortcut may all be zero.
    """
    return name.startswith(_SNN) and not name.startswith(STEM) and _SHORTCUT not in name


def _layer_energy(name: str, macs: float, inputs: _Inputs | None) -> LayerEnergy:
    branch = _BRANCH_NAMES.get(name.partition(".")[0], "other")
    if inputs is None or not _sees_spikes(name):
        return LayerEnergy(name=name, branch=branch, macs=macs, acs=0.0, input_rate=None)
    rate = inputs.density
    return LayerEnergy(name=name, branch=branch, macs=0.0, acs=macs * rate, input_rate=rate, most_acs=macs)


@dataclass(frozen=True, kw_only=True)
class BaselineEnergy:
    """The operations of a video network for one clip of `num_frames` RGB frames, `image_size` pixels wide and high."""

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
        return dict(to_plain(self), joules=self.joules)


def list_baselines() -> list[str]:
    """Return the names that `estimate_baseline` takes: torchvision's video networks."""
    return sorted(torchvision.models.list_models(module=torchvision.models.video))


def estimate_baseline(name: str, *, num_frames: int, image_size: int) -> BaselineEnergy:
    """Count the multiply-accumulates of a torchvision video network with 400 classes, as `estimate_energy` does.

    Nothing is computed: tensors have shapes but no values. Raises SettingError on an unknown name, or a size that the
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
