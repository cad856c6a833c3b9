"""Pictures of an explanation: attention on the frames, spike rasters, firing-rate maps, evidence over time."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from respike.cli.layers import short_layer_name
from respike.cli.sheet import Picture, paint_events, save_figure
from respike.sample import Batch
from respike.zoo.explain import Explanation, ScaleAttention

_ASKING = "#00c2ff"
_RANKS = ("#ff2d2d", "#ff8c1a", "#ffd21f", "#9be15d", "#37c98b")
_QUIET = "#6a6a6a"
_MOST_CLASSES = 5
_COLUMNS = 4


def draw_explanation(
    explanation: Explanation, batch: Batch, classes: Sequence[str], folder: Path, *, top: int, title: str
) -> list[Path]:
    """Write the pictures that there is something to draw for into `folder`; return their paths."""
    drawings: list[tuple[str, bool, Callable[[], Figure]]] = [
        ("attention", bool(explanation.attention), lambda: draw_attention(explanation, batch, top=top, title=title)),
        ("rasters", bool(explanation.layers), lambda: draw_rasters(explanation, title=title)),
        ("rates", bool(explanation.layers), lambda: draw_rates(explanation, title=title)),
        ("evidence", True, lambda: draw_evidence(explanation, batch, classes, title=title)),
    ]
    written = []
    for name, is_there, draw in drawings:
        path = folder / f"{name}.png"
        if is_there:
            save_figure(draw(), path)
            written.append(path)
        else:
            # what an earlier explanation left would be taken for this one's
            path.unlink(missing_ok=True)
    return written


def draw_attention(explanation: Explanation, batch: Batch, *, top: int, title: str) -> Figure:
    """The residual with the asking token, then the key frame with the tokens attended to most, scale by scale.

    Source: ReSpike (arXiv 2409.01564), figure 4.
    """
    spot, scales = explanation.spot, explanation.attention
    key = batch.keys[0, spot.group].numpy()
    residual = batch.residuals[0, spot.group, spot.step].numpy().astype(np.float32)
    luma = residual[0] if batch.color == "ycc" else residual.mean(axis=0)
    figure = _figure(3.1 * (2 + len(scales)), 3.9)
    axes = figure.subplots(1, 2 + len(scales))
    _show(axes[0], _picture(key), "key frame")
    _show(axes[1], paint_events(key, luma), f"residual {spot.step + 1} of the group: the token that asks")
    for place, scale in enumerate(scales):
        _frame(axes[1], scale.token, scale, luma.shape, _ASKING, dashed=place > 0)
        _draw_scale(axes[2 + place], key, scale, top)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _draw_scale(axes: Axes, key: Picture, scale: ScaleAttention, top: int) -> None:
    picture = _picture(key)
    height, width = picture.shape[:2]
    means = scale.weights.mean(axis=0)
    _show(axes, picture, f"scale {scale.scale + 1}: {means.shape[0]} × {means.shape[1]} tokens")
    shade = np.zeros((*means.shape, 4))
    # what is attended to stays bright
    shade[..., 3] = 0.72 * (1 - means / means.max())
    axes.imshow(shade, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    _frame(axes, scale.token, scale, (height, width), _ASKING, dashed=True)
    best = scale.top(top)
    # the lightest first, so that the heaviest lies on top
    for rank, (row, column, _) in reversed(list(enumerate(best))):
        _frame(axes, (row, column), scale, (height, width), _rank_color(rank), inset=0.06)
    # below the picture: tokens of a fine grid are smaller than a number
    for rank, (_, _, weight) in enumerate(best[: len(_RANKS)]):
        place = (rank + 0.5) / len(_RANKS)
        box = {"facecolor": _rank_color(rank), "pad": 1.5, "edgecolor": "none"}
        axes.text(place, -0.06, f"{weight:.1%}", transform=axes.transAxes, fontsize=7, ha="center", bbox=box)


def _rank_color(rank: int) -> str:
    return _RANKS[min(rank, len(_RANKS) - 1)]


def _frame(
    axes: Axes,
    token: tuple[int, int],
    scale: ScaleAttention,
    size: tuple[int, ...],
    color: str,
    *,
    dashed: bool = False,
    inset: float = 0.0,
) -> None:
    """Frame a token; `inset` is the share of its side by which the frame is drawn in."""
    high, wide = size[0] / scale.weights.shape[1], size[1] / scale.weights.shape[2]
    corner = ((token[1] + inset) * wide - 0.5, (token[0] + inset) * high - 0.5)
    extent = (wide * (1 - 2 * inset), high * (1 - 2 * inset))
    style = "--" if dashed else "-"
    axes.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=color, linewidth=1.6, linestyle=style))


def draw_rasters(explanation: Explanation, *, title: str) -> Figure:
    """A raster a layer: all channels at the spot over the steps of the clip; groups are told apart by shade."""
    layers = explanation.layers
    figure, cells = _grid(len(layers), 3.0, 2.2)
    for axes, layer in zip(cells, layers, strict=False):
        num_groups, num_steps = layer.step_rates.shape
        for group in range(0, num_groups, 2):
            axes.axvspan(group * num_steps - 0.5, (group + 1) * num_steps - 0.5, color="#eef2f6", zorder=0)
        channels, steps = np.nonzero(layer.raster)
        axes.scatter(steps, channels, s=5, marker="|", color="#1a1a1a", linewidths=1.2, zorder=2)
        axes.set_xlim(-0.5, layer.raster.shape[1] - 0.5)
        axes.set_ylim(len(layer.raster), -1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=7)
        axes.set_title(f"{short_layer_name(layer.name)}: {layer.raster.mean():.1%} at the spot", fontsize=8)
    spot = explanation.spot
    figure.supxlabel("residual of the clip; membranes start anew where the shade changes", fontsize=9)
    figure.supylabel("channel", fontsize=9)
    figure.suptitle(f"{title}: spikes at row {spot.row}, column {spot.column}", fontsize=11, parse_math=False)
    return figure


def draw_rates(explanation: Explanation, *, title: str) -> Figure:
    """A map a layer: at each place the share of channels and steps that fire, one scale of colours for all."""
    layers = explanation.layers
    highest = max(float(layer.rate_map.max()) for layer in layers) or 1.0
    figure, cells = _grid(len(layers), 2.4, 2.5)
    for axes, layer in zip(cells, layers, strict=False):
        image = axes.imshow(layer.rate_map, cmap="inferno", norm=Normalize(0, highest), interpolation="nearest")
        side = "{}×{}".format(*layer.rate_map.shape)
        axes.set_title(f"{short_layer_name(layer.name)}, {side}: {layer.rate:.1%}", fontsize=8)
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=list(cells), shrink=0.7, label="share of channels and steps that fire")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    figure.suptitle(f"{title}: firing rates", fontsize=11, parse_math=False)
    return figure


def draw_evidence(explanation: Explanation, batch: Batch, classes: Sequence[str], *, title: str) -> Figure:
    """The key frames, and below them the likeliest classes' probabilities, of each group alone and of all so far."""
    num_groups = len(explanation.verdict)
    figure = _figure(max(7.0, 1.7 * num_groups), 5.4)
    grid = figure.add_gridspec(2, num_groups, height_ratios=(1, 2.2))
    for group in range(num_groups):
        _show(figure.add_subplot(grid[0, group]), _picture(batch.keys[0, group].numpy()), f"group {group + 1}")
    axes = figure.add_subplot(grid[1, :])
    places = np.arange(1, num_groups + 1)
    for label in np.argsort(-explanation.verdict[-1], kind="stable")[:_MOST_CLASSES]:
        name = classes[label].replace("$", r"\$")
        (line,) = axes.plot(places, explanation.verdict[:, label], linewidth=2.2, label=name)
        axes.plot(places, explanation.evidence[:, label], "o", color=line.get_color(), markersize=6, alpha=0.55)
    axes.set_xlim(0.5, num_groups + 0.5)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("group; points: this group alone, lines: all groups so far")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{title}: evidence", fontsize=11, parse_math=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _grid(count: int, width: float, height: float) -> tuple[Figure, NDArray[np.object_]]:
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = _figure(width * columns, height * rows + 0.6)
    cells = np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in cells[count:]:
        axes.set_axis_off()
    return figure, cells


def _picture(key: Picture) -> Picture:
    return key.transpose(1, 2, 0)


def _show(axes: Axes, picture: Picture, caption: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(caption, fontsize=8, color=_QUIET)
    axes.set_axis_off()
