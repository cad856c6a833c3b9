"""Plots: training curves, confusion, energy and ablation charts."""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from respike.common.files import atomic_writer, write_atomically
from respike.zoo.firing_rates import DEAD_BELOW, SATURATED_ABOVE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from respike.workflows.ablation_grid import Summary
    from respike.workflows.energy import EnergyComparison
    from respike.zoo.history import EpochRecord


def short_layer_name(name: str) -> str:
    """`snn.stages.0.blocks.1.lif2` → `stage 1, block 2, lif2`; another name stays as it is."""
    parts = name.split(".")
    if len(parts) == 6:
        return f"stage {int(parts[2]) + 1}, block {int(parts[4]) + 1}, {parts[5]}"
    return name


_TRAIN_COLOR = "#3b6ea5"
_VALIDATION_COLOR = "#c8553d"
_WARNING_COLOR = "#f6d9d2"
# rates beyond these are drawn at them: the scale has neither 0 nor 1
_SHOWN_RATES = (0.0003, 0.997)
_RATE_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
# more lines than this cannot be told apart by a list of names
_MAX_NAMED_LAYERS = 20
_MAX_DOTS = 40

_Points = list[tuple[int, float]]
# more names than this cannot be told apart along an axis
_MAX_NAMED_CLASSES = 60


def draw_curves(history: "Sequence[EpochRecord]", path: Path, *, metric: str = "top1") -> None:
    """Draw how a training went, epoch by epoch, into a PNG file.

    Loss and accuracy of training and, where there is one, of validation; the firing rate of each spiking layer, where
    there are such; learning rate, clips a second, and the share of time in which the loader was waited for.
    """
    is_spiking = any(record.firing_rates for record in history)
    heights = (3.4, 3.6, 2.4) if is_spiking else (3.4, 2.4)
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    # rows of their own, so that the list of layers narrows none but its own
    top, *middle, bottom = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    loss, accuracy = _subplots(top, 2, history)
    _draw(loss, "Loss", _told(history, "train_loss"), _validation(history, "loss"))
    _draw(accuracy, "Accuracy", _told(history, "train_accuracy"), _validation(history, metric))
    for place in middle:
        _draw_firing_rates(_subplots(place, 1, history)[0], history)
    rate, pace, waiting = _subplots(bottom, 3, history)
    _draw(rate, "Learning rate", _told(history, "learning_rate"))
    _draw(pace, "Clips a second", _told(history, "clips_per_second"))
    _draw(waiting, "Time waiting for the loader", _told(history, "waited_share"))
    rate.ticklabel_format(axis="y", scilimits=(-2, 3))
    for axes in (accuracy, waiting):
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    for axes in (loss, accuracy):
        axes.legend(frameon=False)
    _save_curves(figure, path)


def _told(history: "Sequence[EpochRecord]", name: str) -> _Points:
    return [(record.epoch, getattr(record, name)) for record in history]


def _validation(history: "Sequence[EpochRecord]", name: str) -> _Points:
    return [(record.epoch, record.validation[name]) for record in history if name in record.validation]


def _subplots(place: SubFigure, num_columns: int, history: "Sequence[EpochRecord]") -> list[Axes]:
    row: list[Axes] = list(place.subplots(1, num_columns, squeeze=False)[0])
    for axes in row:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, history[-1].epoch + 0.5)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return row


def _draw(axes: Axes, title: str, training: _Points, validation: _Points | None = None) -> None:
    axes.set_title(title, fontsize=10)
    _draw_curve(axes, training, color=_TRAIN_COLOR, label="training")
    if validation:
        _draw_curve(axes, validation, color=_VALIDATION_COLOR, label="validation")
    # the margin above is a share of what is shown, from 0
    axes.update_datalim([(1, 0)])
    axes.autoscale_view(scalex=False)
    # after all lines: it holds the other end still
    axes.set_ylim(bottom=0)


def _draw_curve(axes: Axes, points: _Points, **look: Any) -> None:
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, marker="o" if len(points) <= _MAX_DOTS else None, markersize=3, **look)


def _draw_firing_rates(axes: Axes, history: "Sequence[EpochRecord]") -> None:
    """A line a layer, from the first, dark, to the last, bright; dead and saturated layers lie in shaded bands."""
    axes.set_title("Firing rate of each spiking layer", fontsize=10)
    # both ends matter as much as the middle: one spike in a thousand steps, or one step in a thousand without
    axes.set_yscale("logit")
    names = list(dict.fromkeys(name for record in history for name in record.firing_rates))
    least, most = _SHOWN_RATES
    for number, name in enumerate(names):
        rates = [(record.epoch, record.firing_rates[name]) for record in history if name in record.firing_rates]
        last = rates[-1][1]
        is_named = len(names) <= _MAX_NAMED_LAYERS or not DEAD_BELOW <= last <= SATURATED_ABOVE
        label = f"{short_layer_name(name)}: {last:.2%}" if is_named or number in (0, len(names) - 1) else None
        points = [(epoch, min(max(rate, least), most)) for epoch, rate in rates]
        _draw_curve(axes, points, color=colormaps["viridis"](0.92 * number / max(1, len(names) - 1)), label=label)
    bottom, top = least / 1.5, 1 - (1 - most) / 1.5
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


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix `[K, K]` of counts into a PNG file, each row as shares of its label's clips."""
    num_classes = len(classes)
    size = min(max(4.0, 1.5 + 0.28 * num_classes), 18.0)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if num_classes <= _MAX_NAMED_CLASSES:
        axes.set_xticks(range(num_classes), classes, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(num_classes), classes, fontsize=8, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's clips")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    _save_curves(figure, path)


def _save_curves(figure: Figure, path: Path) -> None:
    # a canvas of its own: no window system and no state shared with whoever else draws
    FigureCanvasAgg(figure)
    with atomic_writer(path) as file:
        figure.savefig(file, format="png", dpi=120)


_OTHERS = "#9aa5b1"
_ANN, _FUSION, _SPIKES, _SNN, _HEAD = "#3b6ea5", "#7a5195", "#ef8354", "#c8553d", "#2f4b3c"


def draw_energy(account: "EnergyComparison", path: Path) -> None:
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


def _parts(account: "EnergyComparison") -> list[tuple[str, float, str]]:
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
    _save_picture(draw_accuracy(summaries, figure), out / ACCURACY_NAME)
    _save_picture(draw_by_energy(summaries, figure), out / ENERGY_NAME)
    _save_picture(draw_by_stride(summaries, figure), out / STRIDE_NAME)


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
        _draw_series(axes, label, points, across, figure, number)
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
        _draw_series(axes, label, points, [point.setting.stride for point in points], figure, number)
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


def _draw_series(
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


def _save_picture(picture: "Figure", path: Path) -> None:
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


_DPI = 100


@contextmanager
def _boxes_for_missing_glyphs() -> Iterator[None]:
    """A class name in a script that the font lacks is drawn as boxes: no reason to complain on stderr."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[1 - length :]}"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all. Raises RespikeError where the disk refuses."""
    write_atomically(path, figure_png(figure))


def figure_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG, the same for the same figure."""
    buffer = io.BytesIO()
    with _boxes_for_missing_glyphs():
        figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    return buffer.getvalue()


def inline_png(content: bytes) -> str:
    """PNG bytes as an address that a page can hold within itself."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
