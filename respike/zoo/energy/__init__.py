"""Energy: what a network computes on clips → operations → joules, a row a layer, beside other networks."""

from respike.zoo.energy.account import AC_JOULES, MAC_JOULES, EnergyReport, LayerEnergy
from respike.zoo.energy.baselines import BaselineEnergy, estimate_baseline, list_baselines
from respike.zoo.energy.measure import estimate_energy

__all__ = [
    "AC_JOULES",
    "MAC_JOULES",
    "BaselineEnergy",
    "EnergyReport",
    "LayerEnergy",
    "estimate_baseline",
    "estimate_energy",
    "list_baselines",
]
