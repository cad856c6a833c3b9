"""Curves: a training's loss and accuracy, and a score's confusion matrix, as PNG pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from respike.files import atomic_writer

if TYPE_CHECKING:
    from respike.zoo.history import EpochRecord

_TRAIN_COLOR = "#3b6ea5"
_VALIDATION_COLOR = "#c8553d"
# more names than this cannot be told apart along an axis
_MAX_NAMED_CLASSES = 60


def draw_curves(history: "Sequence[EpochRecord]", path: Path, *, metric: str = "top1") -> None:
    """Draw loss and accuracy over the epochs, of training and, where there is one, of validation, into a PNG file."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    train_losses = [(record.epoch, record.train_loss) for record in history]
    train_accuracies = [(record.epoch, record.train_accuracy) for record in history]
    _draw_pair(loss_axes, "Loss", train_losses, _validation(history, "loss"))
    _draw_pair(accuracy_axes, "Accuracy", train_accuracies, _validation(history, metric))
    accuracy_axes.set_ylim(0, 1.02)
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    _save(figure, path)


def _validation(history: "Sequence[EpochRecord]", name: str) -> list[tuple[int, float]]:
    return [(record.epoch, record.validation[name]) for record in history if name in record.validation]


def _draw_pair(axes: Axes, title: str, training: list[tuple[int, float]], validation: list[tuple[int, float]]) -> None:
    for name, color, points in (
        ("training", _TRAIN_COLOR, training),
        ("validation", _VALIDATION_COLOR, validation),
    ):
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, color=color, label=name, marker="o", markersize=3)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.5, max(epoch for epoch, _ in training) + 0.5)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


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
