"""The account: operations and joules of a network for one clip, a row a layer, a total a branch.

45 nm CMOS, 32-bit float: a multiply-accumulate (MAC) 4.6 pJ, an accumulate (AC) 0.9 pJ.
Source: Horowitz, Computing's energy problem, ISSCC 2014; arXiv 2409.01564, section 4.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeAlias

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
