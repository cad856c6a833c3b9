"""The contact sheet: key frames beside their residual events, as a picture.

Events are drawn as event cameras show them: red where it grew brighter, blue where darker, stronger with magnitude,
over the faded key frame, so that one sees where things move.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from respike.color import ycc_difference_to_rgb
from respike.files import write_atomically
from respike.sample import EventClip

_BRIGHTER = np.array([214, 39, 40], np.float32)
_DARKER = np.array([31, 90, 200], np.float32)
# how far the key frame is faded to white behind its events
_FADE = 0.78
# a residual of this many grey levels gets the full colour
_FULL_GREY_LEVELS = 48.0


def draw_events(clip: EventClip, group: int, step: int) -> NDArray[np.uint8]:
    """One residual as a picture, uint8 RGB `[H, W, 3]`."""
    residual = clip.residuals()[group, step]
    luma = residual[0] if clip.color == "ycc" else residual.mean(axis=0)
    key = clip.keys[group].transpose(1, 2, 0).astype(np.float32)
    grey = key.mean(axis=-1, keepdims=True)
    ground = 255 - (255 - grey.repeat(3, axis=-1)) * (1 - _FADE)
    # a floor of visibility: one event is one step of the threshold, and should be seen
    strength = np.clip(np.abs(luma) / _FULL_GREY_LEVELS, 0, 1) ** 0.5 * (luma != 0)
    color = np.where((luma > 0)[..., None], _BRIGHTER, _DARKER)
    picture = ground + strength[..., None] * (color - ground)
    drawn: NDArray[np.uint8] = picture.astype(np.uint8)
    return drawn


def draw_difference(clip: EventClip, group: int, step: int) -> NDArray[np.uint8]:
    """One residual as the network's input sees it: RGB differences about grey, uint8 `[H, W, 3]`."""
    residual = clip.residuals()[group, step]
    rgb = ycc_difference_to_rgb(residual) if clip.color == "ycc" else residual.astype(np.float32)
    picture: NDArray[np.uint8] = np.clip(128 + rgb, 0, 255).astype(np.uint8)
    return picture.transpose(1, 2, 0)


def draw_sheet(clips: Sequence[EventClip], num_groups: int = 2) -> Figure:
    """A row a clip: for each of its first groups the key frame, then the events of its residuals."""
    columns = max(min(num_groups, len(clip.keys)) * clip.stride for clip in clips)
    height, width = clips[0].keys.shape[-2:]
    cell_inches = 1.9
    row_inches = cell_inches * height / width + 0.42
    figure = Figure(figsize=(columns * cell_inches, len(clips) * row_inches + 0.35), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(clips), columns, squeeze=False)
    for row, clip in enumerate(clips):
        for axis in axes[row]:
            axis.set_axis_off()
        for column in range(min(num_groups, len(clip.keys)) * clip.stride):
            _draw_cell(axes[row][column], clip, column)
    figure.suptitle("key frames, and events: red grew brighter, blue darker", fontsize=9, color="#444444")
    return figure


def _draw_cell(axis: Any, clip: EventClip, frame: int) -> None:
    group, step = divmod(frame, clip.stride)
    seconds = clip.info.times_seconds[frame]
    if step == 0:
        axis.imshow(clip.keys[group].transpose(1, 2, 0))
        axis.set_title(f"{clip.info.class_name}\nkey · {seconds:.2f} s", fontsize=8, fontweight="bold", loc="left")
    else:
        axis.imshow(draw_events(clip, group, step - 1), interpolation="nearest")
        axis.set_title(f"+{step} · {seconds:.2f} s", fontsize=8, color="#555555", loc="left")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all. Raises RespikeError where the disk refuses."""
    write_atomically(path, figure_png(figure))


def figure_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def inline_png(content: bytes) -> str:
    """PNG bytes as an address that a page can hold within itself."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
