"""Ablation report: the results of a grid as table and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from respike.cli.lines import format_share
from respike.files import atomic_writer, canonical_json, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from matplotlib.axes import Axes

    from respike.zoo.ablation import Cell, Summary

RESULTS_NAME = "results.jsonl"
TABLE_NAME = "table.md"
ENERGY_NAME = "accuracy_by_energy.png"
STRIDE_NAME = "accuracy_by_stride.png"
COLUMNS = (
    "stride",
    "θ",
    "branches",
    "fusion",
    "seeds",
    "top-1 of videos",
    "top-1 of clips",
    "mean class",
    "energy a clip",
    "sparse stem",
    "events not zero",
    "parameters",
)
_NUM_WORDS = 4


def write_results(out: Path, results: "Sequence[tuple[Cell, Mapping[str, Any]]]") -> "list[Summary]":
    """Write what is known so far: a line a cell, the table, the pictures. Returns a summary a setting."""
    from respike.zoo.ablation import summarise_cells

    write_atomically(out / RESULTS_NAME, "".join(canonical_json(result) + "\n" for _, result in results))
    summaries = summarise_cells(results)
    write_atomically(out / TABLE_NAME, render_markdown(summaries))
    _draw(summaries, out / ENERGY_NAME, by_energy=True)
    _draw(summaries, out / STRIDE_NAME, by_energy=False)
    return summaries


def table_rows(summaries: "Sequence[Summary]") -> list[list[str]]:
    """Cells of the table, a row a setting, under `COLUMNS`."""
    return [
        [
            str(summary.setting.stride),
            str(summary.setting.threshold),
            summary.setting.branches,
            summary.setting.fusion,
            str(summary.num_seeds),
            *(_share(summary, name) for name in ("video_top1", "clip_top1", "video_mean_class_accuracy")),
            format_energy(summary.energy_joules),
            format_energy(summary.sparse_energy_joules),
            format_share(summary.event_density),
            f"{summary.num_parameters:,}",
        ]
        for summary in summaries
    ]


def render_markdown(summaries: "Sequence[Summary]") -> str:
    """The table as Markdown."""
    rules = ["---:"] * len(COLUMNS)
    rules[2:_NUM_WORDS] = ["---", "---"]
    rows = [COLUMNS, rules, *table_rows(summaries)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def format_energy(joules: float) -> str:
    """An energy for people: 1.23 mJ, 456 µJ."""
    return f"{1e3 * joules:.3g} mJ" if joules >= 1e-3 else f"{1e6 * joules:.3g} µJ"


def _share(summary: "Summary", name: str) -> str:
    deviation = summary.deviations[name]
    share = format_share(summary.figures[name])
    return share if deviation is None else f"{share} ± {100 * deviation:.1f}"


def _draw(summaries: "Sequence[Summary]", path: Path, *, by_energy: bool) -> None:
    """Draw accuracy of videos, a line for each choice of network and threshold, its points being the strides."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure: Figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Axes = figure.subplots()
    series: dict[str, list[Summary]] = {}
    for summary in summaries:
        series.setdefault(_label(summary, summaries), []).append(summary)
    for label, points in series.items():
        points.sort(key=lambda point: point.setting.stride)
        across = [1e3 * point.energy_joules if by_energy else point.setting.stride for point in points]
        shares = [point.figures["video_top1"] for point in points]
        spread = [point.deviations["video_top1"] or 0.0 for point in points]
        axes.errorbar(across, shares, yerr=spread, label=label, marker="o", markersize=5, capsize=3)
        if by_energy:
            for place, share, point in zip(across, shares, points, strict=True):
                axes.annotate(f" s{point.setting.stride}", (place, share), fontsize=8, color="#555555")
    axes.set_xscale("log")
    axes.minorticks_off()
    if by_energy:
        axes.set_xlabel("energy of a clip, mJ (an estimate for 45 nm; s: stride)")
        values = [1e3 * summary.energy_joules for summary in summaries]
        ticks = [min(values), max(values)] if max(values) > 1.05 * min(values) else [min(values)]
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    else:
        axes.set_xlabel("stride: frames a key frame")
        strides = sorted({summary.setting.stride for summary in summaries})
        axes.set_xticks(strides, list(map(str, strides)))
    axes.set_ylabel("top-1 of videos")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    # a canvas of its own: no window system and no state shared with whoever else draws
    FigureCanvasAgg(figure)
    with atomic_writer(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _label(summary: "Summary", summaries: "Sequence[Summary]") -> str:
    """What tells a line from the others: branches, and fusion and threshold where they vary."""
    setting = summary.setting
    parts: list[str] = [setting.branches]
    if len({each.setting.fusion for each in summaries if each.setting.branches == "hybrid"}) > 1:
        parts.append(f"fusion {setting.fusion}")
    if len({each.setting.threshold for each in summaries}) > 1:
        parts.append(f"θ {setting.threshold}")
    return ", ".join(parts)
