"""Curves: how a training went, epoch by epoch, and a score's confusion matrix, as PNG pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from respike.cli.layers import short_layer_name
from respike.files import atomic_writer
from respike.zoo.firing import DEAD_BELOW, SATURATED_ABOVE

if TYPE_CHECKING:
    from respike.zoo.history import EpochRecord

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
    _save(figure, path)


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
    _draw_line(axes, training, color=_TRAIN_COLOR, label="training")
    if validation:
        _draw_line(axes, validation, color=_VALIDATION_COLOR, label="validation")
    # the margin above is a share of what is shown, from 0
    axes.update_datalim([(1, 0)])
    axes.autoscale_view(scalex=False)
    # after all lines: it holds the other end still
    axes.set_ylim(bottom=0)


def _draw_line(axes: Axes, points: _Points, **look: Any) -> None:
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
        _draw_line(axes, points, color=colormaps["viridis"](0.92 * number / max(1, len(names) - 1)), label=label)
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
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # a canvas of its own: no window system and no state shared with whoever else draws
    FigureCanvasAgg(figure)
    with atomic_writer(path) as file:
        figure.savefig(file, format="png", dpi=120)
