"""The energy chart: a bar a network, ours split into branches, as a PNG picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from respike.cli.sheet import save_figure

if TYPE_CHECKING:
    from respike.cli.accounting import Account

_OTHERS = "#9aa5b1"
_ANN, _FUSION, _SPIKES, _SNN, _HEAD = "#3b6ea5", "#7a5195", "#ef8354", "#c8553d", "#2f4b3c"


def draw_energy(account: "Account", path: Path) -> None:
    """Draw the energy of one clip, in millijoules, of the network and of those beside it, into a PNG file."""
    rows = account.rows()
    figure = Figure(figsize=(9, 1.9 + 0.42 * len(rows)), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [name for name, *_ in rows]
    left = 0.0
    for name, joules, color in _parts(account):
        axes.barh(0, 1e3 * joules, left=left, color=color, label=name)
        left += 1e3 * joules
    axes.barh(range(1, len(rows)), [1e3 * joules for *_, joules in rows[1:]], color=_OTHERS)
    longest = max(joules for *_, joules in rows)
    for place, (*_, joules) in enumerate(rows):
        ratio = "" if place == 0 else f"   {joules / rows[0][3]:.2f}×"
        axes.text(1e3 * (joules + longest / 100), place, f"{1e3 * joules:.3g}{ratio}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), names, fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1e3 * longest * 1.2)
    axes.set_xlabel("millijoules a clip (45 nm: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate)")
    told = f"one clip of {account.num_frames} frames; rates of {account.clips}; ×: as many times {rows[0][0]}"
    axes.set_title(told, fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    save_figure(figure, path)


def _parts(account: "Account") -> list[tuple[str, float, str]]:
    """(name, joules, colour) of what the network's bar is made of; the spiking branch by the kind of operation."""
    from respike.zoo.energy import AC_JOULES, MAC_JOULES

    branches = account.report.by_branch()
    snn_macs, snn_acs, _ = branches.get("SNN", (0.0, 0.0, 0.0))
    parts = [
        ("ANN", branches.get("ANN", (0.0, 0.0, 0.0))[2], _ANN),
        ("fusion", branches.get("fusion", (0.0, 0.0, 0.0))[2], _FUSION),
        ("SNN, stem and shortcuts", snn_macs * MAC_JOULES, _SNN),
        ("SNN, spikes", snn_acs * AC_JOULES, _SPIKES),
        ("head", branches.get("head", (0.0, 0.0, 0.0))[2], _HEAD),
    ]
    return [part for part in parts if part[1]]
