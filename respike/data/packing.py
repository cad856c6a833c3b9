"""Packing: events → half a byte each, in an order that compresses well. docs/shard-format.md has the form.

All frames of a clip lie side by side on one sheet, each with luma above and the two planes of chroma side by side under
it (`rgb`: three under each other). What is kept of an event is its difference to the residual before and to the row
above, which is nearly always small: half a byte. Rows are predicted within bands, so that undoing it is a few additions
of long rows, and the bytes stand in narrow columns, where the compressor finds what repeats from row to row.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from respike.color import Color
from respike.data.events import event_dtype
from respike.errors import ShardError

Events = NDArray[np.signedinteger[Any]]

_BAND = 32
# half a byte holds a difference from -7 to 7 as 0 to 14; 15 says that its byte stands apart
_ZERO, _APART = 7, 15
# two events a byte, four bytes a column
_COLUMN = 8


def frame_size(height: int, width: int, color: Color) -> tuple[int, int]:
    """Rows and columns of the sheet that a frame takes whose luma is `height` x `width` pixels."""
    columns = width if color == "rgb" else 2 * -(-width // 2)
    return (3 * height if color == "rgb" else height + -(-height // 2)), -(-columns // _COLUMN) * _COLUMN


def _places(height: int, width: int, color: Color) -> tuple[tuple[slice, slice], ...]:
    """Rows and columns of the three planes on their frame's part of the sheet."""
    if color == "rgb":
        return tuple((slice(top, top + height), slice(width)) for top in (0, height, 2 * height))
    half = -(-width // 2)
    return (
        (slice(height), slice(width)),
        (slice(height, None), slice(half)),
        (slice(height, None), slice(half, 2 * half)),
    )


def pack(planes: Sequence[Events], color: Color) -> bytes:
    """Pack the event planes of a clip, `[N, R, h, w]` each, int8 or int16."""
    kind = planes[0].dtype
    num_groups, num_residuals, height, width = planes[0].shape
    rows, columns = frame_size(height, width, color)
    sheet = np.empty((rows, num_residuals, num_groups, columns), kind)
    places = _places(height, width, color)
    # chroma ends where luma does, or one column later
    sheet[..., places[-1][1].stop :] = 0
    sheet[:height, ..., width:] = 0
    for plane, (down, across) in zip(planes, places, strict=True):
        place = sheet[down, ..., across].transpose(2, 1, 0, 3)
        place[:, 0] = plane[:, 0]
        np.subtract(plane[:, 1:], plane[:, :-1], out=place[:, 1:])
    steps = np.empty_like(sheet)
    np.subtract(sheet[1:], sheet[:-1], out=steps[1:])
    steps[::_BAND] = sheet[::_BAND]
    # seen as unsigned, what is below -7 or above 7 is large; all is modulo 256, or 65,536
    codes = steps.view(_unsigned(kind)).reshape(-1)
    codes += _ZERO
    apart = _positions(codes >= _APART)
    values = codes[apart].astype(_unsigned(kind).newbyteorder("<"), copy=False)
    codes[apart] = _APART
    pairs = codes.astype(np.uint8, copy=False).view("<u2")
    # little-endian, so the left one of two neighbours is the lower byte; it goes to the upper half
    halves = (pairs << 4 | pairs >> 8).astype(np.uint8)
    in_columns = np.asarray(cv2.transpose(halves.view(np.int32).reshape(rows, -1)))
    return in_columns.tobytes() + values.tobytes()


def packed_sizes(
    num_groups: int, num_residuals: int, height: int, width: int, color: Color, threshold: int = 2
) -> range:
    """How many bytes the planes of such a clip may take when they are packed; `threshold` is θ in grey levels."""
    size = event_dtype(threshold).itemsize
    rows, columns = frame_size(height, width, color)
    num_codes = num_groups * num_residuals * rows * columns
    return range(num_codes // 2, num_codes // 2 + num_codes * size + 1, size)


def unpack(
    content: bytes, num_groups: int, num_residuals: int, height: int, width: int, color: Color, threshold: int = 2
) -> tuple[Events, ...]:
    """Undo `pack`: `[N, R, h, w]` each of `event_dtype(threshold)`, views of one array, contiguous along rows alone.

    `content` has one of `packed_sizes`. Raises ShardError where it was not made by `pack`, and where an event is
    beyond what `threshold`, θ in grey levels, leaves of ±255.
    """
    rows, columns = frame_size(height, width, color)
    num_codes = num_groups * num_residuals * rows * columns
    stored, values = np.split(np.frombuffer(content, np.uint8), [num_codes // 2])
    halves = cv2.transpose(stored.view(np.int32).reshape(-1, rows)).view(np.uint8)
    # 0xLR to 0xR0LR to 0x0R0L, which little-endian is L, R
    pairs = np.multiply(halves, np.uint16(0x1001), dtype="<u2")
    pairs >>= 4
    pairs &= 0x0F0F
    kind = event_dtype(threshold)
    values = values.view(_unsigned(kind).newbyteorder("<"))
    codes = pairs.view(np.uint8).reshape(-1)
    apart = _positions(codes == _APART)
    if len(apart) != len(values):
        raise ShardError(f"the events hold {len(values):,} values apart, {len(apart):,} are called for")
    differences = codes.astype(_unsigned(kind), copy=False)
    differences[apart] = values
    differences -= _ZERO
    sheet = differences.view(kind).reshape(rows, num_residuals, num_groups * columns)
    for step in range(1, num_residuals):
        sheet[:, step] += sheet[:, step - 1]
    _add_rows(sheet.reshape(rows, -1))
    check_largest(sheet, threshold)
    frames = sheet.reshape(rows, num_residuals, num_groups, columns)
    places = _places(height, width, color)
    if frames[:height, ..., width:].any() or frames[..., places[-1][1].stop :].any():
        raise ShardError("events stand outside of the picture")
    return tuple(frames[down, ..., across].transpose(2, 1, 0, 3) for down, across in places)


def _add_rows(sheet: Events) -> None:
    """Add to each row of a sheet the one above it, band by band."""
    whole = len(sheet) // _BAND * _BAND
    # all bands together: one addition a row of a band
    for bands in (sheet[:whole].reshape(-1, _BAND, sheet.shape[1]), sheet[None, whole:]):
        for row in range(1, bands.shape[1]):
            bands[:, row] += bands[:, row - 1]


def _unsigned(kind: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{kind.itemsize}")


def check_largest(events: Events, threshold: int) -> None:
    """Raise ShardError where an event times `threshold` is beyond ±255, the most that two 8-bit samples can give."""
    most = 255 // threshold
    if (low := int(events.min())) < -most or (high := int(events.max())) > most:
        value = low if low < -most else high
        raise ShardError(f"the events hold {value}, with threshold {threshold} they end at ±{most}")


def _positions(marks: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Where `marks` `[8 n]` are set: by words of eight first, for few are, and numpy looks at those twice as fast."""
    words = np.flatnonzero(marks.view(np.uint64) != 0)
    within = np.flatnonzero(marks.reshape(-1, 8)[words])
    positions: NDArray[np.intp] = words[within >> 3] * 8 + (within & 7)
    return positions
