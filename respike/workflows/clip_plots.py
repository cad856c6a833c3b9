"""Clip plots: the contact sheet of clips, and the pictures of an explanation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray

from respike.types import Batch, EventClip
from respike.workflows.plots import (
    allow_missing_glyphs,
    name_style,
    new_figure,
    save_figure,
    short_layer_name,
    shorten,
)
from respike.zoo.explanation import Explanation, ScaleAttention

Picture = NDArray[np.uint8]

_BRIGHTER = np.array([205, 26, 36], np.float32)
_DARKER = np.array([24, 82, 204], np.float32)
# share by which the key frame behind events is faded to white
_FADE = 0.84
# a residual of this many grey levels gets the full color
_FULL_COLOR_GREY_LEVELS = 72.0
_MAX_RESIDUAL_COLUMNS = 4
_SHEET_DPI = 100
# in pixels of the sheet
_CELL, _GAP, _MARGIN, _HEADER, _CAPTION, _LEGEND, _SWATCH = 280, 10, 24, 34, 38, 46, 12
_TEXT_COLOR, _QUIET_COLOR = "#1a1a1a", "#6a6a6a"


def contact_sheet(clips: Sequence[EventClip]) -> Figure:
    """Draw a row for each clip: a key frame, the events of its residuals, and the last frame rebuilt from the two.

    Of each clip the group with the median number of events is shown; for a stride of 2 the next group as well. Of more
    than four residuals, four spread over the group are shown. Raises ValueError if `clips` is empty.
    """
    if not clips:
        raise ValueError("a contact sheet needs at least one clip")
    rows = [_draw_row(clip) for clip in clips]
    width = max(sum(cell.picture.shape[1] + _GAP for cell in row) - _GAP for row in rows) + 2 * _MARGIN
    heights = [_HEADER + max(cell.picture.shape[0] for cell in row) + _CAPTION for row in rows]
    height = _LEGEND + sum(heights) + _MARGIN // 2
    figure = new_figure(width / _SHEET_DPI, height / _SHEET_DPI, dpi=_SHEET_DPI, is_constrained=False)
    _write_legend(figure, height - _LEGEND / 2)
    top = height - _LEGEND
    for clip, row, row_height in zip(clips, rows, heights, strict=True):
        _write_header(figure, clip, top)
        left = _MARGIN
        for cell in row:
            bottom = top - _HEADER - cell.picture.shape[0]
            # resampling would blur the events
            figure.figimage(cell.picture, left, bottom, origin="upper")
            _write(figure, left, bottom - 16, cell.caption, color=_QUIET_COLOR, size=9)
            left += cell.picture.shape[1] + _GAP
        top -= row_height
    return figure


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One picture of a row and the caption below it."""

    picture: Picture
    caption: str


def _draw_row(clip: EventClip) -> list[_Cell]:
    num_groups, num_residuals = clip.planes[0].shape[:2]
    counts = np.count_nonzero(clip.planes[0], axis=(1, 2, 3))
    # the median is neither the stillest group nor a cut between two scenes
    first = int(np.argsort(counts, kind="stable")[num_groups // 2])
    groups = [first] if num_residuals > 1 else sorted({first, min(first + 1, num_groups - 1)})
    return [cell for group in groups for cell in _draw_group(clip, group)]


def _draw_group(clip: EventClip, group: int) -> list[_Cell]:
    num_residuals = clip.planes[0].shape[1]
    times = clip.info.times_seconds[group * clip.stride : (group + 1) * clip.stride]
    num_shown = min(num_residuals, _MAX_RESIDUAL_COLUMNS)
    steps = sorted({round(place) for place in np.linspace(0, num_residuals - 1, num_shown)})
    luma = _luma(clip, group)
    cells = [_Cell(picture=_fit(clip.keys[group].transpose(1, 2, 0)), caption=f"key frame · {times[0]:.2f} s")]
    for step in steps:
        share = np.count_nonzero(luma[step]) / luma[step].size
        caption = f"+{_format_lag(times[step + 1] - times[0])} · {share:.1%} of pixels"
        cells.append(_Cell(picture=_fit(draw_events(clip, group, step), is_sharp=True), caption=caption))
    rebuilt = clip.to_frames()[group * clip.stride + steps[-1] + 1].transpose(1, 2, 0)
    cells.append(_Cell(picture=_fit(rebuilt), caption=f"rebuilt · {times[steps[-1] + 1]:.2f} s"))
    return cells


def _format_lag(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _fit(picture: Picture, *, is_sharp: bool = False) -> Picture:
    """Scale a picture so that its longer side fills a cell; `is_sharp` keeps the pixels of small pictures square."""
    height, width = picture.shape[:2]
    scale = _CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    enlarge = cv2.INTER_NEAREST if is_sharp else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else enlarge), np.uint8)


def draw_events(clip: EventClip, group: int, step: int) -> Picture:
    """Draw the luma events of one residual over the faded key frame, uint8 RGB `[H, W, 3]`.

    `step` counts the residuals of the group from 0. For `rgb` clips luma is the mean of the three planes.
    """
    return paint_events(clip.keys[group], _luma(clip, group)[step])


def paint_events(key: Picture, luma: NDArray[np.float32]) -> Picture:
    """Draw brightness changes over the faded key frame, uint8 RGB `[H, W, 3]`.

    `key` is uint8 RGB `[3, H, W]`, `luma` `[H, W]` the changes in grey levels.
    """
    grey = key.mean(axis=0)[..., None]
    ground = 255 - (255 - grey) * (1 - _FADE)
    # the square root makes small residuals visible: a single event is only one threshold step
    strength = np.sqrt(np.minimum(np.abs(luma) / _FULL_COLOR_GREY_LEVELS, 1))[..., None]
    color = np.where((luma > 0)[..., None], _BRIGHTER, _DARKER)
    picture: Picture = np.rint(ground + strength * (color - ground)).astype(np.uint8)
    return picture


def _luma(clip: EventClip, group: int) -> NDArray[np.float32]:
    """Return the brightness residuals of a group, `[R, H, W]`, in grey levels."""
    planes = clip.planes[:1] if clip.color == "ycc" else clip.planes
    steps: NDArray[np.float32] = np.mean([plane[group].astype(np.float32) for plane in planes], axis=0)
    return steps * np.float32(clip.threshold)


def _write_legend(figure: Figure, middle: float) -> None:
    left, baseline = float(_MARGIN), round(middle) - 5
    for color, words in ((_BRIGHTER, "brighter than the key frame"), (_DARKER, "darker")):
        swatch = np.full((_SWATCH, _SWATCH, 3), color, np.float32).astype(np.uint8)
        figure.figimage(swatch, round(left), baseline - 1, origin="upper")
        left = _write(figure, left + _SWATCH + 7, baseline, words, size=10) + 20
    _write(figure, left, baseline, "stronger color: larger change", color=_QUIET_COLOR, size=10)


def _write_header(figure: Figure, clip: EventClip, top: float) -> None:
    baseline = top - _HEADER + 11
    right = _write(figure, _MARGIN, baseline, shorten(clip.info.class_name, 40), size=12, weight="bold")
    source = f"{shorten(clip.info.video, 70)} · clip {clip.info.clip_index}"
    _write(figure, right + 12, baseline, source, color=_QUIET_COLOR, size=9)


def _write(
    figure: Figure,
    left: float,
    baseline: float,
    words: str,
    *,
    size: float,
    color: str = _TEXT_COLOR,
    weight: str = "normal",
) -> float:
    """Write words at a position in pixels from the lower left; return the x of their right end."""
    text = figure.text(left, baseline, words, color=color, fontsize=size, fontweight=weight, **name_style())
    text.set_transform(IdentityTransform())
    with allow_missing_glyphs():
        return float(text.get_window_extent().x1)


_QUERY_COLOR = "#00c2ff"
_RANK_COLORS = ("#ff2d2d", "#ff8c1a", "#ffd21f", "#9be15d", "#37c98b")
_MAX_CLASSES = 5
_NUM_COLUMNS = 4
_EXPLANATION_DPI = 130
_MAX_CLASS_LETTERS, _MAX_TITLE_LETTERS = 30, 110


def draw_explanation(
    explanation: Explanation, batch: Batch, classes: Sequence[str], folder: Path, *, top: int, title: str
) -> list[Path]:
    """Write the pictures that this explanation has data for into `folder`; return their paths.

    `top` is the number of tokens that are marked at each scale. A picture of an earlier explanation that this one does
    not have is removed.
    """
    drawings: list[tuple[str, bool, Callable[[], Figure]]] = [
        ("attention", bool(explanation.attention), lambda: draw_attention(explanation, batch, top=top, title=title)),
        ("rasters", bool(explanation.layers), lambda: draw_rasters(explanation, title=title)),
        ("rates", bool(explanation.layers), lambda: draw_rates(explanation, title=title)),
        ("evidence", True, lambda: draw_evidence(explanation, batch, classes, title=title)),
    ]
    written = []
    for name, has_data, draw in drawings:
        path = folder / f"{name}.png"
        if has_data:
            save_figure(draw(), path)
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    return written


def draw_attention(explanation: Explanation, batch: Batch, *, top: int, title: str) -> Figure:
    """Draw the residual with the query token, then for each scale the key frame with the tokens attended to most.

    Source: ReSpike (arXiv 2409.01564), figure 4.
    """
    spot, scales = explanation.spot, explanation.attention
    key = batch.keys[0, spot.group].numpy()
    residual = batch.residuals[0, spot.group, spot.step].numpy().astype(np.float32)
    luma = residual[0] if batch.color == "ycc" else residual.mean(axis=0)
    figure = _figure(3.1 * (2 + len(scales)), 3.9)
    axes = figure.subplots(1, 2 + len(scales))
    _show(axes[0], _picture(key), "key frame")
    _show(axes[1], paint_events(key, luma), f"residual {spot.step + 1} of the group: the query token")
    for place, scale in enumerate(scales):
        _frame(axes[1], scale.token, scale, luma.shape, _QUERY_COLOR, dashed=place > 0)
        _draw_scale(axes[2 + place], key, scale, top)
    _set_title(figure, title)
    return figure


def _draw_scale(axes: Axes, key: Picture, scale: ScaleAttention, top: int) -> None:
    picture = _picture(key)
    height, width = picture.shape[:2]
    means = scale.weights.mean(axis=0)
    _show(axes, picture, f"scale {scale.scale + 1}: {means.shape[0]} × {means.shape[1]} tokens")
    shade = np.zeros((*means.shape, 4))
    # tokens with much attention stay bright
    shade[..., 3] = 0.72 * (1 - means / means.max())
    axes.imshow(shade, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    _frame(axes, scale.token, scale, (height, width), _QUERY_COLOR, dashed=True)
    best = scale.top(top)
    # lowest weight first, so that the highest is drawn on top
    for rank, (row, column, _) in reversed(list(enumerate(best))):
        _frame(axes, (row, column), scale, (height, width), _rank_color(rank), inset=0.06)
    # below the picture, because tokens of a fine grid are smaller than a number
    for rank, (_, _, weight) in enumerate(best[: len(_RANK_COLORS)]):
        place = (rank + 0.5) / len(_RANK_COLORS)
        box = {"facecolor": _rank_color(rank), "pad": 1.5, "edgecolor": "none"}
        axes.text(place, -0.06, f"{weight:.1%}", transform=axes.transAxes, fontsize=7, ha="center", bbox=box)


def _rank_color(rank: int) -> str:
    return _RANK_COLORS[min(rank, len(_RANK_COLORS) - 1)]


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
    """Draw a frame around a token; `inset` is the share of the token's side between its edge and the frame."""
    high, wide = size[0] / scale.weights.shape[1], size[1] / scale.weights.shape[2]
    corner = ((token[1] + inset) * wide - 0.5, (token[0] + inset) * high - 0.5)
    extent = (wide * (1 - 2 * inset), high * (1 - 2 * inset))
    style = "--" if dashed else "-"
    axes.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=color, linewidth=1.6, linestyle=style))


def draw_rasters(explanation: Explanation, *, title: str) -> Figure:
    """Draw the spikes of each layer: all channels at the spot over the steps of the clip, every other group shaded."""
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
    figure.supxlabel("residual of the clip; membranes are reset where the shade changes", fontsize=9)
    figure.supylabel("channel", fontsize=9)
    _set_title(figure, f"{title}: spikes at row {spot.row}, column {spot.column}")
    return figure


def draw_rates(explanation: Explanation, *, title: str) -> Figure:
    """Draw a map for each layer, on one color scale: at each position the share of channels and steps that fire."""
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
    _set_title(figure, f"{title}: firing rates")
    return figure


def draw_evidence(explanation: Explanation, batch: Batch, classes: Sequence[str], *, title: str) -> Figure:
    """Draw the key frames, and below them the most probable classes by each group alone and by all groups so far."""
    num_groups = len(explanation.verdict)
    figure = _figure(max(7.0, 1.7 * num_groups), 5.4)
    grid = figure.add_gridspec(2, num_groups, height_ratios=(1, 2.2))
    for group in range(num_groups):
        _show(figure.add_subplot(grid[0, group]), _picture(batch.keys[0, group].numpy()), f"group {group + 1}")
    axes = figure.add_subplot(grid[1, :])
    places = np.arange(1, num_groups + 1)
    for label in np.argsort(-explanation.verdict[-1], kind="stable")[:_MAX_CLASSES]:
        name = shorten(classes[label], _MAX_CLASS_LETTERS)
        (line,) = axes.plot(places, explanation.verdict[:, label], linewidth=2.2, label=name)
        axes.plot(places, explanation.evidence[:, label], "o", color=line.get_color(), markersize=6, alpha=0.55)
    axes.set_xlim(0.5, num_groups + 0.5)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("group; points: this group alone, lines: all groups so far")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    legend = axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for text in legend.get_texts():
        text.set(**name_style())
    _set_title(figure, f"{title}: evidence")
    return figure


def _figure(width: float, height: float) -> Figure:
    return new_figure(width, height, dpi=_EXPLANATION_DPI)


def _set_title(figure: Figure, title: str) -> None:
    figure.suptitle(shorten(title, _MAX_TITLE_LETTERS), fontsize=11, **name_style())


def _grid(count: int, width: float, height: float) -> tuple[Figure, NDArray[np.object_]]:
    num_columns = min(_NUM_COLUMNS, count)
    num_rows = -(-count // num_columns)
    figure = _figure(width * num_columns, height * num_rows + 0.6)
    cells = np.asarray(figure.subplots(num_rows, num_columns, squeeze=False)).ravel()
    for axes in cells[count:]:
        axes.set_axis_off()
    return figure, cells


def _picture(key: Picture) -> Picture:
    return key.transpose(1, 2, 0)


def _show(axes: Axes, picture: Picture, caption: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(caption, fontsize=8, color=_QUIET_COLOR)
    axes.set_axis_off()
