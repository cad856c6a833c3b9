"""Ablation pictures: an accuracy by setting, by energy and by stride, each with what the seeds differ by."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from respike.files import atomic_writer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from respike.zoo.ablation import Summary

ACCURACY_NAME = "accuracy.png"
ENERGY_NAME = "accuracy_by_energy.png"
STRIDE_NAME = "accuracy_by_stride.png"
FIGURE_TITLES = {
    "video_top1": "top-1 of videos",
    "clip_top1": "top-1 of clips",
    "video_mean_class_accuracy": "mean class accuracy of videos",
}
_MARKERS = "osD^vP*X"
# from this ratio on energies are drawn on a logarithmic scale
_WIDE = 20


def draw_pictures(summaries: "Sequence[Summary]", out: Path, figure: str) -> None:
    """Draw all three into `out`; `figure` is one of FIGURE_TITLES."""
    _save(draw_accuracy(summaries, figure), out / ACCURACY_NAME)
    _save(draw_by_energy(summaries, figure), out / ENERGY_NAME)
    _save(draw_by_stride(summaries, figure), out / STRIDE_NAME)


def draw_accuracy(summaries: "Sequence[Summary]", figure: str) -> "Figure":
    """A row a setting: a dot a seed, the mean as a bar, the seeds' deviation as a line."""
    from matplotlib.ticker import PercentFormatter

    picture, axes = _make_axes(height=1.4 + 0.42 * len(summaries))
    for row, summary in enumerate(summaries):
        mean, values = summary.figures[figure], summary.values[figure]
        axes.barh(row, mean, height=0.6, color="C0", alpha=0.3)
        axes.errorbar(mean, row, xerr=summary.deviations[figure] or 0.0, color="C0", capsize=4, marker="|")
        axes.scatter(values, [row] * len(values), s=14, color="#333333", zorder=3)
    axes.set_yticks(range(len(summaries)), [_full_label(summary, summaries) for summary in summaries])
    axes.invert_yaxis()
    axes.set_xlim(0, min(1.02, 1.05 * max(axes.get_xlim()[1], 0.01)))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel(FIGURE_TITLES[figure])
    axes.grid(axis="x", alpha=0.3)
    return picture


def draw_by_energy(summaries: "Sequence[Summary]", figure: str) -> "Figure":
    """A line for each choice of network and threshold over the energy of a clip, its points being the strides."""
    picture, axes = _make_axes()
    several = len({summary.setting.stride for summary in summaries}) > 1
    for number, (label, points) in enumerate(_series(summaries).items()):
        across = [1e3 * point.energy_joules for point in points]
        _draw_line(axes, label, points, across, figure, number)
        for place, point in zip(across, points, strict=True):
            if several:
                name, at = f"s{point.setting.stride}", (place, point.figures[figure])
                axes.annotate(name, at, xytext=(6, 6), textcoords="offset points", fontsize=9)
    _set_energy_scale(axes, [1e3 * summary.energy_joules for summary in summaries])
    axes.set_xlabel("energy of a clip, mJ (an estimate for 45 nm; s: stride)")
    _finish_lines(axes, figure)
    return picture


def draw_by_stride(summaries: "Sequence[Summary]", figure: str) -> "Figure":
    """A line for each choice of network and threshold over the stride."""
    picture, axes = _make_axes()
    for number, (label, points) in enumerate(_series(summaries).items()):
        _draw_line(axes, label, points, [point.setting.stride for point in points], figure, number)
    axes.set_xscale("log")
    axes.minorticks_off()
    strides = sorted({summary.setting.stride for summary in summaries})
    axes.set_xticks(strides, list(map(str, strides)))
    axes.set_xlabel("stride: frames a key frame")
    _finish_lines(axes, figure)
    return picture


def _make_axes(height: float = 4.5) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7, height), layout="constrained")
    axes: Axes = picture.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return picture, axes


def _series(summaries: "Sequence[Summary]") -> "dict[str, list[Summary]]":
    """Settings that differ in stride alone, by what tells them from the others."""
    series: dict[str, list[Summary]] = {}
    for summary in sorted(summaries, key=lambda each: each.setting.stride):
        series.setdefault(_label(summary, summaries), []).append(summary)
    return series


def _draw_line(
    axes: "Axes", label: str, points: "Sequence[Summary]", across: Sequence[float], figure: str, number: int
) -> None:
    shares = [point.figures[figure] for point in points]
    spread = [point.deviations[figure] or 0.0 for point in points]
    marker = _MARKERS[number % len(_MARKERS)]
    axes.errorbar(across, shares, yerr=spread, label=label, color=f"C{number % 10}", marker=marker, capsize=3)
    for place, point in zip(across, points, strict=True):
        values = point.values[figure]
        axes.scatter([place] * len(values), values, s=8, color=f"C{number % 10}", alpha=0.5)


def _set_energy_scale(axes: "Axes", values: Sequence[float]) -> None:
    """Powers of ten where there are some between the lowest and the highest, else an even scale with its own ticks."""
    if max(values) > _WIDE * min(values):
        axes.set_xscale("log")
    else:
        axes.margins(x=0.12)


def _finish_lines(axes: "Axes", figure: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylabel(FIGURE_TITLES[figure])
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    # from 0, so that a small difference looks small
    axes.set_ylim(0, min(1.02, 1.15 * max(axes.get_ylim()[1], 0.01)))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _save(picture: "Figure", path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # a canvas of its own: no window system and no state shared with whoever else draws
    FigureCanvasAgg(picture)
    with atomic_writer(path) as file:
        picture.savefig(file, format="png", dpi=120)


def _label(summary: "Summary", summaries: "Sequence[Summary]") -> str:
    """What tells a line from the others: branches, and fusion and threshold where they vary."""
    setting = summary.setting
    parts: list[str] = [setting.branches]
    if setting.branches == "hybrid":
        fusions = {each.setting.fusion_name for each in summaries if each.setting.branches == "hybrid"}
        parts += [f"fusion {setting.fusion_name}"] if len(fusions) > 1 else []
    if len({each.setting.threshold for each in summaries}) > 1:
        parts.append(f"θ {setting.threshold}")
    return ", ".join(parts)


def _full_label(summary: "Summary", summaries: "Sequence[Summary]") -> str:
    """What tells a setting from the others."""
    varies = len({each.setting.stride for each in summaries}) > 1
    return _label(summary, summaries) + (f", stride {summary.setting.stride}" if varies else "")
