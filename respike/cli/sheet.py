"""The contact sheet: key frames beside their residual events, as a picture.

Events are drawn as event cameras show them: red where a pixel grew brighter than in the key frame, blue where darker,
stronger with magnitude, over the faded key frame, so that one sees what moves and which way.
"""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray

from respike.files import write_atomically
from respike.sample import EventClip

Picture = NDArray[np.uint8]

_BRIGHTER = np.array([205, 26, 36], np.float32)
_DARKER = np.array([24, 82, 204], np.float32)
# how far the key frame is faded to white behind its events
_FADE = 0.84
# a residual of this many grey levels gets the full colour
_FULL_GREY_LEVELS = 72.0
_MAX_RESIDUAL_COLUMNS = 4
# all in pixels of the sheet
_CELL, _GAP, _MARGIN, _HEADER, _CAPTION, _LEGEND, _SWATCH = 280, 10, 24, 34, 38, 46, 12
_DPI = 100
_INK, _QUIET = "#1a1a1a", "#6a6a6a"


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One picture of a row and what stands under it."""

    picture: Picture
    caption: str


def draw_events(clip: EventClip, group: int, step: int) -> Picture:
    """The luma events of one residual (`rgb`: the mean of the three planes) over the faded key frame.

    The picture is uint8 RGB `[H, W, 3]`; `step` counts the residuals of the group from 0.
    """
    return paint_events(clip.keys[group], _luma(clip, group)[step])


def paint_events(key: Picture, luma: NDArray[np.float32]) -> Picture:
    """Changes of brightness `[H, W]`, in grey levels, over the faded key frame, uint8 RGB `[3, H, W]`: `[H, W, 3]`."""
    grey = key.mean(axis=0)[..., None]
    ground = 255 - (255 - grey) * (1 - _FADE)
    # the root lifts small residuals: a single event is one step of the threshold, and should be seen
    strength = np.sqrt(np.minimum(np.abs(luma) / _FULL_GREY_LEVELS, 1))[..., None]
    color = np.where((luma > 0)[..., None], _BRIGHTER, _DARKER)
    picture: Picture = np.rint(ground + strength * (color - ground)).astype(np.uint8)
    return picture


def _luma(clip: EventClip, group: int) -> NDArray[np.float32]:
    """The brightness residuals of a group, `[R, H, W]`, in grey levels."""
    planes = clip.planes[:1] if clip.color == "ycc" else clip.planes
    steps: NDArray[np.float32] = np.mean([plane[group].astype(np.float32) for plane in planes], axis=0)
    return steps * np.float32(clip.threshold)


def draw_sheet(clips: Sequence[EventClip]) -> Figure:
    """A row a clip: a key frame, the events of its residuals, and the last frame rebuilt from the two.

    Of each clip the group with the median number of events is shown (of stride 2: it and the next), of many residuals
    four spread over the group. Raises ValueError where there is no clip.
    """
    if not clips:
        raise ValueError("a sheet needs at least one clip")
    rows = [_draw_row(clip) for clip in clips]
    width = max(sum(cell.picture.shape[1] + _GAP for cell in row) - _GAP for row in rows) + 2 * _MARGIN
    heights = [_HEADER + max(cell.picture.shape[0] for cell in row) + _CAPTION for row in rows]
    height = _LEGEND + sum(heights) + _MARGIN // 2
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    _write_legend(figure, height - _LEGEND / 2)
    top = height - _LEGEND
    for clip, row, row_height in zip(clips, rows, heights, strict=True):
        _write_header(figure, clip, top)
        left = _MARGIN
        for cell in row:
            bottom = top - _HEADER - cell.picture.shape[0]
            # pixel for pixel: a resampled event is a blurred one
            figure.figimage(cell.picture, left, bottom, origin="upper")
            _write(figure, left, bottom - 16, cell.caption, color=_QUIET, size=9)
            left += cell.picture.shape[1] + _GAP
        top -= row_height
    return figure


def _draw_row(clip: EventClip) -> list[_Cell]:
    num_groups, num_residuals = clip.planes[0].shape[:2]
    counts = np.count_nonzero(clip.planes[0], axis=(1, 2, 3))
    # the median, upwards: not the stillest group, and not a cut between two scenes
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
    """Scale a picture so that its longer side fills a cell; `is_sharp` keeps the pixels of small ones square."""
    height, width = picture.shape[:2]
    scale = _CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    enlarge = cv2.INTER_NEAREST if is_sharp else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else enlarge), np.uint8)


def _write_legend(figure: Figure, middle: float) -> None:
    left, baseline = float(_MARGIN), round(middle) - 5
    for color, words in ((_BRIGHTER, "brighter than the key frame"), (_DARKER, "darker")):
        swatch = np.full((_SWATCH, _SWATCH, 3), color, np.float32).astype(np.uint8)
        figure.figimage(swatch, round(left), baseline - 1, origin="upper")
        left = _write(figure, left + _SWATCH + 7, baseline, words, size=10) + 20
    _write(figure, left, baseline, "the stronger the colour, the larger the change", color=_QUIET, size=10)


def _write_header(figure: Figure, clip: EventClip, top: float) -> None:
    baseline = top - _HEADER + 11
    right = _write(figure, _MARGIN, baseline, _shorten(clip.info.class_name, 40), size=12, weight="bold")
    source = f"{_shorten(clip.info.video, 70)} · clip {clip.info.clip_index}"
    _write(figure, right + 12, baseline, source, color=_QUIET, size=9)


def _write(
    figure: Figure, left: float, baseline: float, words: str, *, size: float, color: str = _INK, weight: str = "normal"
) -> float:
    """Write words at a place in pixels from the lower left; return where they end."""
    text = figure.text(left, baseline, words, color=color, fontsize=size, fontweight=weight)
    text.set_transform(IdentityTransform())
    # names are text, not formulas: a `$` in one must stand
    text.set_parse_math(False)
    with _boxes_for_missing_glyphs():
        return float(text.get_window_extent().x1)


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
