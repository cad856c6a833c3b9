"""Plots: figure helpers for all pictures, and charts of training, confusion, energy and ablations.

Functions named `draw_…` return a matplotlib figure; `save_figure` writes one.
"""

import base64
import functools
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from respike.common.files import write_atomically
from respike.zoo.energy import AC_JOULES, MAC_JOULES
from respike.zoo.firing_rates import DEAD_BELOW, SATURATED_ABOVE

if TYPE_CHECKING:
    from respike.workflows.ablation_grid import Summary
    from respike.workflows.energy import EnergyComparison
    from respike.zoo.history import EpochRecord

# fonts that are used, where they are installed, for letters that matplotlib's own font lacks
_FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
)


def new_figure(width: float, height: float, *, dpi: int = 120, is_constrained: bool = True) -> Figure:
    """Return an empty white figure of `width` × `height` inches with `dpi` pixels an inch.

    With `is_constrained` matplotlib arranges axes and texts so that nothing overlaps or is cut off.
    """
    layout: Literal["constrained"] | None = "constrained" if is_constrained else None
    figure = Figure(figsize=(width, height), layout=layout, dpi=dpi, facecolor="white")
    # a canvas of its own needs no window system and shares no state with other drawing code
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all. Raises RespikeError if the file system refuses."""
    write_atomically(path, figure_png(figure))


def figure_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with allow_missing_glyphs():
        figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    return buffer.getvalue()


def inline_png(content: bytes) -> str:
    """Return PNG bytes as a `data:` address, which a page can hold within itself."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


@contextmanager
def allow_missing_glyphs() -> Iterator[None]:
    """Draw letters that no installed font has as boxes, without a warning on stderr."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


@functools.cache
def name_style() -> dict[str, Any]:
    """Return the text properties for names from data, such as class names and paths.

    They are drawn as they are, a `$` included, with fallback fonts for letters that the default font lacks.
    """
    installed = set(font_manager.get_font_names())
    return {"family": ["DejaVu Sans", *(font for font in _FALLBACK_FONTS if font in installed)], "parse_math": False}


def shorten(text: str, max_letters: int) -> str:
    """Return `text` with its middle replaced by an ellipsis if it is longer than `max_letters`."""
    if len(text) <= max_letters:
        return text
    num_last = (max_letters - 1) // 2
    return f"{text[: max_letters - 1 - num_last]}…{text[len(text) - num_last :]}"


def short_layer_name(name: str) -> str:
    """Return `stage 1, block 2, lif2` for `snn.stages.0.blocks.1.lif2`; any other name is returned unchanged."""
    parts = name.split(".")
    if len(parts) == 6:
        return f"stage {int(parts[2]) + 1}, block {int(parts[4]) + 1}, {parts[5]}"
    return name


# training curves

_TRAIN_COLOR = "#3b6ea5"
_VALIDATION_COLOR = "#c8553d"
_WARNING_COLOR = "#f6d9d2"
# the logit scale has neither 0 nor 1: rates beyond these are drawn at these
_SHOWN_RATES = (0.0003, 0.997)
_RATE_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
# a longer legend cannot be read
_MAX_NAMED_LAYERS = 20
_MAX_MARKED_EPOCHS = 40

# (epoch, value)
_Points = list[tuple[int, float]]


def draw_curves(history: "Sequence[EpochRecord]", *, metric: str = "top1") -> Figure:
    """Draw a training epoch by epoch.

    Shown are loss and accuracy of training and, if there is one, validation; the firing rate of each spiking layer;
    learning rate, clips a second, and the share of time spent waiting for the loader. `metric` names the validation
    score that is drawn as accuracy.
    """
    is_spiking = any(record.firing_rates for record in history)
    heights = (3.4, 3.6, 2.4) if is_spiking else (3.4, 2.4)
    figure = new_figure(9, sum(heights))
    # subfigures, so that the legend of layers narrows only its own row
    top, *middle, bottom = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    loss, accuracy = _epoch_axes(top, 2, history)
    _draw_curves(loss, "Loss", _training_points(history, "train_loss"), _validation_points(history, "loss"))
    _draw_curves(accuracy, "Accuracy", _training_points(history, "train_accuracy"), _validation_points(history, metric))
    for row in middle:
        _draw_firing_rates(_epoch_axes(row, 1, history)[0], history)
    rate, speed, waiting = _epoch_axes(bottom, 3, history)
    _draw_curves(rate, "Learning rate", _training_points(history, "learning_rate"))
    _draw_curves(speed, "Clips a second", _training_points(history, "clips_per_second"))
    _draw_curves(waiting, "Time waiting for the loader", _training_points(history, "waited_share"))
    rate.ticklabel_format(axis="y", scilimits=(-2, 3))
    for axes in (accuracy, waiting):
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    for axes in (loss, accuracy):
        axes.legend(frameon=False)
    return figure


def _training_points(history: "Sequence[EpochRecord]", name: str) -> _Points:
    return [(record.epoch, getattr(record, name)) for record in history]


def _validation_points(history: "Sequence[EpochRecord]", name: str) -> _Points:
    return [(record.epoch, record.validation[name]) for record in history if name in record.validation]


def _epoch_axes(row: SubFigure, num_columns: int, history: "Sequence[EpochRecord]") -> list[Axes]:
    all_axes: list[Axes] = list(row.subplots(1, num_columns, squeeze=False)[0])
    for axes in all_axes:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, history[-1].epoch + 0.5)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return all_axes


def _draw_curves(axes: Axes, title: str, training: _Points, validation: _Points | None = None) -> None:
    axes.set_title(title, fontsize=10)
    _draw_curve(axes, training, color=_TRAIN_COLOR, label="training")
    if validation:
        _draw_curve(axes, validation, color=_VALIDATION_COLOR, label="validation")
    # the scale begins at 0, and its upper margin is a share of what is shown
    axes.update_datalim([(1, 0)])
    axes.autoscale_view(scalex=False)
    # last, because it also fixes the upper end
    axes.set_ylim(bottom=0)


def _draw_curve(axes: Axes, points: _Points, **style: Any) -> None:
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, marker="o" if len(points) <= _MAX_MARKED_EPOCHS else None, markersize=3, **style)


def _draw_firing_rates(axes: Axes, history: "Sequence[EpochRecord]") -> None:
    """Draw a line for each layer, the first dark, the last bright; shaded bands are dead and saturated layers."""
    axes.set_title("Firing rate of each spiking layer", fontsize=10)
    # both ends matter as much as the middle: a spike in one step of a thousand, or in all but one
    axes.set_yscale("logit")
    names = list(dict.fromkeys(name for record in history for name in record.firing_rates))
    lowest, highest = _SHOWN_RATES
    for number, name in enumerate(names):
        rates = [(record.epoch, record.firing_rates[name]) for record in history if name in record.firing_rates]
        last = rates[-1][1]
        is_named = len(names) <= _MAX_NAMED_LAYERS or not DEAD_BELOW <= last <= SATURATED_ABOVE
        label = f"{short_layer_name(name)}: {last:.2%}" if is_named or number in (0, len(names) - 1) else None
        points = [(epoch, min(max(rate, lowest), highest)) for epoch, rate in rates]
        _draw_curve(axes, points, color=colormaps["viridis"](0.92 * number / max(1, len(names) - 1)), label=label)
    bottom, top = lowest / 1.5, 1 - (1 - highest) / 1.5
    axes.set_ylim(bottom, top)
    axes.set_yticks(_RATE_TICKS, labels=[f"{100 * tick:g}%" for tick in _RATE_TICKS])
    axes.yaxis.set_minor_locator(NullLocator())
    for low, high, word in ((bottom, DEAD_BELOW, "dead"), (SATURATED_ABOVE, top, "saturated")):
        axes.axhspan(low, high, color=_WARNING_COLOR, zorder=0)
        edge, side = (high, "top") if word == "dead" else (low, "bottom")
        axes.text(1, edge, word, transform=axes.get_yaxis_transform(), ha="right", va=side, fontsize=7)
    axes.legend(
        title="in the last epoch",
        title_fontsize=7,
        fontsize=7,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
    )


# confusion matrix

# names of more classes would overlap along an axis
_MAX_NAMED_CLASSES = 60
_MAX_CLASS_LETTERS = 24
_LETTER_INCHES = 0.07


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix `[K, K]` of counts, each row as shares of the clips of its label.

    `classes` are the K names; long ones are shortened, and more than 60 are left out.
    """
    num_classes = len(classes)
    names = [shorten(name, _MAX_CLASS_LETTERS) for name in classes] if num_classes <= _MAX_NAMED_CLASSES else []
    side = min(max(4.0, 1.5 + 0.28 * num_classes), 18.0)
    label_inches = _LETTER_INCHES * max(map(len, names), default=0)
    figure = new_figure(side + 1 + label_inches, side + label_inches)
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if names:
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=8, **name_style())
        axes.set_yticks(range(num_classes), names, fontsize=8, **name_style())
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's clips")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    return figure


# energy

_BASELINE_COLOR = "#9aa5b1"
_ANN_COLOR, _FUSION_COLOR, _SPIKES_COLOR, _SNN_COLOR, _HEAD_COLOR = (
    "#3b6ea5",
    "#7a5195",
    "#ef8354",
    "#c8553d",
    "#2f4b3c",
)
_MAX_NETWORK_LETTERS = 40


def draw_energy(comparison: "EnergyComparison") -> Figure:
    """Draw the energy of one clip in millijoules, a bar for the network and one for each it is compared with."""
    rows = comparison.rows()
    joules = [row[3] for row in rows]
    figure = new_figure(9, 1.9 + 0.42 * len(rows))
    axes = figure.subplots()
    left = 0.0
    for name, part_joules, color in _energy_parts(comparison):
        axes.barh(0, 1e3 * part_joules, left=left, color=color, label=name)
        left += 1e3 * part_joules
    axes.barh(range(1, len(rows)), [1e3 * each for each in joules[1:]], color=_BASELINE_COLOR)
    longest = max(joules)
    for row, each in enumerate(joules):
        ratio = "" if row == 0 else f"   {each / joules[0]:.2f}×"
        axes.text(1e3 * (each + longest / 100), row, f"{1e3 * each:.3g}{ratio}", va="center", fontsize=9)
    names = [shorten(name, _MAX_NETWORK_LETTERS) for name, *_ in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9, **name_style())
    axes.invert_yaxis()
    axes.set_xlim(0, 1e3 * longest * 1.2)
    axes.set_xlabel("millijoules a clip (45 nm: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate)")
    title = f"one clip of {comparison.num_frames} frames; rates measured on {shorten(comparison.clips, 50)}"
    axes.set_title(f"{title}\n×: ratio to {names[0]}", fontsize=10, **name_style())
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    return figure


def _energy_parts(comparison: "EnergyComparison") -> list[tuple[str, float, str]]:
    """Return (name, joules, color) of the parts of the network's bar, the spiking branch by kind of operation."""
    branches = comparison.report.by_branch()
    snn_macs, snn_acs, _ = branches.get("SNN", (0.0, 0.0, 0.0))
    parts = [
        ("ANN", branches.get("ANN", (0.0, 0.0, 0.0))[2], _ANN_COLOR),
        ("fusion", branches.get("fusion", (0.0, 0.0, 0.0))[2], _FUSION_COLOR),
        ("SNN, stem and shortcuts", snn_macs * MAC_JOULES, _SNN_COLOR),
        ("SNN, spikes", snn_acs * AC_JOULES, _SPIKES_COLOR),
        ("head", branches.get("head", (0.0, 0.0, 0.0))[2], _HEAD_COLOR),
    ]
    return [part for part in parts if part[1]]


# ablations

METRIC_TITLES = {
    "video_top1": "top-1 of videos",
    "clip_top1": "top-1 of clips",
    "video_mean_class_accuracy": "mean class accuracy of videos",
}
_MARKERS = "osD^vP*X"
# from this ratio of largest to smallest on, energies are drawn on a logarithmic scale
_LOG_SCALE_RATIO = 20


def draw_ablation(summaries: "Sequence[Summary]", metric: str) -> Mapping[str, Figure]:
    """Draw the three charts of an ablation, by the names of their files; `metric` is one of METRIC_TITLES."""
    return {
        "accuracy.png": draw_accuracy(summaries, metric),
        "accuracy_by_energy.png": draw_accuracy_by_energy(summaries, metric),
        "accuracy_by_stride.png": draw_accuracy_by_stride(summaries, metric),
    }


def draw_accuracy(summaries: "Sequence[Summary]", metric: str) -> Figure:
    """Draw a row for each grid point: a dot for each seed, a bar for the mean, a line for the deviation."""
    figure, axes = _chart(height=1.4 + 0.42 * len(summaries))
    for row, summary in enumerate(summaries):
        mean, values = summary.means[metric], summary.values[metric]
        axes.barh(row, mean, height=0.6, color="C0", alpha=0.3)
        axes.errorbar(mean, row, xerr=summary.deviations[metric] or 0.0, color="C0", capsize=4, marker="|")
        axes.scatter(values, [row] * len(values), s=14, color="#333333", zorder=3)
    axes.set_yticks(range(len(summaries)), [_full_label(summary, summaries) for summary in summaries])
    axes.invert_yaxis()
    axes.set_xlim(0, min(1.02, 1.05 * max(axes.get_xlim()[1], 0.01)))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel(METRIC_TITLES[metric])
    axes.grid(axis="x", alpha=0.3)
    return figure


def draw_accuracy_by_energy(summaries: "Sequence[Summary]", metric: str) -> Figure:
    """Draw accuracy over the energy of a clip: a line for each network and threshold, a point for each stride."""
    figure, axes = _chart()
    strides = {summary.point.stride for summary in summaries}
    for number, (label, series) in enumerate(_group_by_label(summaries).items()):
        millijoules = [1e3 * summary.energy_joules for summary in series]
        _draw_series(axes, label, series, millijoules, metric, number)
        if len(strides) > 1:
            for x, summary in zip(millijoules, series, strict=True):
                name, at = f"s{summary.point.stride}", (x, summary.means[metric])
                axes.annotate(name, at, xytext=(6, 6), textcoords="offset points", fontsize=9)
    energies = [summary.energy_joules for summary in summaries]
    # a narrow range has no power of ten in it, and a logarithmic scale would have no tick
    if max(energies) > _LOG_SCALE_RATIO * min(energies):
        axes.set_xscale("log")
    else:
        axes.margins(x=0.12)
    axes.set_xlabel("energy of a clip, mJ (an estimate for 45 nm; s: stride)")
    _finish_accuracy_axis(axes, metric)
    return figure


def draw_accuracy_by_stride(summaries: "Sequence[Summary]", metric: str) -> Figure:
    """Draw accuracy over the stride: a line for each network and threshold."""
    figure, axes = _chart()
    for number, (label, series) in enumerate(_group_by_label(summaries).items()):
        _draw_series(axes, label, series, [summary.point.stride for summary in series], metric, number)
    axes.set_xscale("log")
    axes.minorticks_off()
    strides = sorted({summary.point.stride for summary in summaries})
    axes.set_xticks(strides, list(map(str, strides)))
    axes.set_xlabel("stride: frames per key frame")
    _finish_accuracy_axis(axes, metric)
    return figure


def _chart(height: float = 4.5) -> tuple[Figure, Axes]:
    figure = new_figure(7, height)
    axes: Axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _group_by_label(summaries: "Sequence[Summary]") -> "dict[str, list[Summary]]":
    """Group grid points that differ only in stride, by their common label."""
    series: dict[str, list[Summary]] = {}
    for summary in sorted(summaries, key=lambda each: each.point.stride):
        series.setdefault(_label(summary, summaries), []).append(summary)
    return series


def _draw_series(
    axes: Axes, label: str, series: "Sequence[Summary]", xs: Sequence[float], metric: str, number: int
) -> None:
    means = [summary.means[metric] for summary in series]
    deviations = [summary.deviations[metric] or 0.0 for summary in series]
    color, marker = f"C{number % 10}", _MARKERS[number % len(_MARKERS)]
    axes.errorbar(xs, means, yerr=deviations, label=label, color=color, marker=marker, capsize=3)
    for x, summary in zip(xs, series, strict=True):
        values = summary.values[metric]
        axes.scatter([x] * len(values), values, s=8, color=color, alpha=0.5)


def _finish_accuracy_axis(axes: Axes, metric: str) -> None:
    axes.set_ylabel(METRIC_TITLES[metric])
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    # from 0, so that a small difference looks small
    axes.set_ylim(0, min(1.02, 1.15 * max(axes.get_ylim()[1], 0.01)))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _label(summary: "Summary", summaries: "Sequence[Summary]") -> str:
    """Return the branches, with fusion and threshold if these vary."""
    point = summary.point
    parts: list[str] = [point.branches]
    if point.branches == "hybrid":
        fusions = {each.point.fusion_name for each in summaries if each.point.branches == "hybrid"}
        parts += [f"fusion {point.fusion_name}"] if len(fusions) > 1 else []
    if len({each.point.threshold for each in summaries}) > 1:
        parts.append(f"θ {point.threshold}")
    return ", ".join(parts)


def _full_label(summary: "Summary", summaries: "Sequence[Summary]") -> str:
    """Return the label, with the stride if it varies."""
    varies = len({each.point.stride for each in summaries}) > 1
    return _label(summary, summaries) + (f", stride {summary.point.stride}" if varies else "")
