"""Event codec: frames to residual events, and events to packed bytes and back."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

from respike.common.errors import SettingError, ShardError, UnreadableVideoError
from respike.types import COLORS, Color

MAX_THRESHOLD = 255


def check_threshold(threshold: int) -> None:
    """Raise SettingError unless `threshold` is a whole number of grey levels from 1 to 255."""
    if not 1 <= threshold <= MAX_THRESHOLD:
        raise SettingError(f"threshold is {threshold}", f"it must be a whole number from 1 to {MAX_THRESHOLD}")


def event_dtype(threshold: int) -> np.dtype[Any]:
    """The type events are stored in: int8, or int16 where θ = 1 lets them reach ±255."""
    return np.dtype(np.int16 if threshold < 2 else np.int8)


def residual_events(
    frame: NDArray[np.uint8], key_frame: NDArray[np.uint8], threshold: int, out: NDArray[np.signedinteger[Any]]
) -> None:
    """Write the events of one plane, `[H, W]` uint8 both, against the same plane of the key frame into `out`.

    `out` is `[H, W]` of `event_dtype(threshold)`; its values are in steps of `threshold`.
    """
    if threshold == 1:
        np.subtract(frame, key_frame, out=out, dtype=np.int16)
        return
    # saturating differences in both directions: one of the two is always 0, and each stays within 8 bits,
    # so the whole pass runs on bytes; 255 // 2 = 127 fits int8
    brighter, darker = cv2.subtract(frame, key_frame), cv2.subtract(key_frame, frame)
    step = np.uint8(threshold)
    np.floor_divide(brighter, step, out=brighter)
    np.floor_divide(darker, step, out=darker)
    np.subtract(brighter, darker, out=out.view(np.uint8))


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


EVENTS_VERSION = 2
READ_VERSIONS = (1, 2)
# of this one the planes stand one after another
_PLAIN_VERSION = 1

_MAGIC = b"RSPK"
# magic, version, colour, θ, N, R, then height and width of luma; little-endian
_HEADER = struct.Struct("<4sBBHHHII")
_ZSTD_LEVEL = 1
# a 4K clip of 64 frames fits, in `ycc`; what claims more is made to exhaust memory
MAX_EVENT_BYTES = 1 << 30


def plane_shapes(num_groups: int, num_residuals: int, height: int, width: int, color: Color) -> list[tuple[int, ...]]:
    """Shapes of the three stored planes: chroma of `ycc` is halved in both directions, rounded up."""
    luma = (num_groups, num_residuals, height, width)
    chroma = luma if color == "rgb" else (num_groups, num_residuals, -(-height // 2), -(-width // 2))
    return [luma, chroma, chroma]


def make_planes(
    num_groups: int, num_residuals: int, height: int, width: int, color: Color, threshold: int
) -> tuple[Events, ...]:
    """Three event planes for a clip, not filled in.

    Shapes are those of `plane_shapes`, `[N, R, h, w]` each; int8, or int16 where `threshold` is 1.
    Raises UnreadableVideoError where they would take more than readers of the format accept.
    """
    shapes = plane_shapes(num_groups, num_residuals, height, width, color)
    num_bytes = sum(map(math.prod, shapes)) * event_dtype(threshold).itemsize
    if num_bytes > MAX_EVENT_BYTES:
        raise UnreadableVideoError(
            "encode", f"the events of a clip of {width}x{height} take {num_bytes:,} bytes, at most {MAX_EVENT_BYTES:,}"
        )
    return tuple(np.empty(shape, event_dtype(threshold)) for shape in shapes)


def encode_events(planes: tuple[Events, ...], threshold: int, color: Color) -> bytes:
    """Encode the event planes of a clip, `[N, R, h, w]` as in EventClip, as one self-describing member.

    `threshold` is θ in grey levels. The same planes give the same bytes.
    """
    num_groups, num_residuals, height, width = planes[0].shape
    header = _HEADER.pack(
        _MAGIC, EVENTS_VERSION, COLORS.index(color), threshold, num_groups, num_residuals, height, width
    )
    return header + zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(pack(planes, color))


@dataclass(frozen=True, kw_only=True)
class EventsHeader:
    """What an events member says of itself: θ, colour, and the sizes N, R, H, W of luma."""

    version: int
    threshold: int
    color: Color
    num_groups: int
    num_residuals: int
    height: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int, int, Color]:
        """N, R, H, W and the colour: all that the planes' shapes come from."""
        return self.num_groups, self.num_residuals, self.height, self.width, self.color

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the three planes."""
        return plane_shapes(*self.sizes)

    @property
    def num_bytes(self) -> int:
        """Bytes of the three planes in memory."""
        return sum(math.prod(shape) for shape in self.shapes) * event_dtype(self.threshold).itemsize

    @property
    def stored_sizes(self) -> range:
        """How many bytes may come out of the compressed part."""
        if self.version == _PLAIN_VERSION:
            return range(self.num_bytes, self.num_bytes + 1)
        return packed_sizes(*self.sizes, threshold=self.threshold)


def read_events_header(content: bytes) -> EventsHeader:
    """Read the header of an events member; takes no memory. Raises ShardError on nonsense and on absurd sizes."""
    if len(content) < _HEADER.size:
        raise ShardError("the events member is shorter than its header")
    magic, version, color_code, threshold, *sizes = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise ShardError("the events member does not begin with its magic number")
    if version not in READ_VERSIONS:
        raise ShardError(f"events are of format {version}, this respike reads up to {EVENTS_VERSION}", "update respike")
    if color_code >= len(COLORS) or not 1 <= threshold <= MAX_THRESHOLD or min(sizes) < 1:
        raise ShardError(f"the events header holds colour {color_code}, threshold {threshold}, sizes {sizes}")
    num_groups, num_residuals, height, width = sizes
    header = EventsHeader(
        version=version,
        threshold=threshold,
        color=COLORS[color_code],
        num_groups=num_groups,
        num_residuals=num_residuals,
        height=height,
        width=width,
    )
    if header.num_bytes > MAX_EVENT_BYTES:
        raise ShardError(f"the events header asks for {header.num_bytes:,} bytes, at most {MAX_EVENT_BYTES:,} are read")
    return header


def decode_events(content: bytes) -> tuple[tuple[Events, ...], int, Color]:
    """Decode an events member to (planes, threshold, colour): `[N, R, h, w]` each, int8 or, where θ is 1, int16.

    Raises ShardError on damage, before memory is taken for what its header does not promise, and on an event that no
    two 8-bit samples can give.
    """
    header = read_events_header(content)
    stored = _decompress(memoryview(content)[_HEADER.size :], header.stored_sizes)
    if header.version != _PLAIN_VERSION:
        planes = unpack(stored, *header.sizes, threshold=header.threshold)
    else:
        flat = np.frombuffer(stored, dtype=event_dtype(header.threshold).newbyteorder("<"))
        check_largest(flat, header.threshold)
        parts = np.split(flat, np.cumsum([math.prod(shape) for shape in header.shapes])[:-1])
        planes = tuple(part.reshape(shape) for part, shape in zip(parts, header.shapes, strict=True))
    return planes, header.threshold, header.color


def _decompress(content: memoryview, sizes: range) -> bytes:
    try:
        if (declared := zstandard.frame_content_size(content)) not in sizes:
            raise ShardError(f"the events hold {declared:,} bytes, their header says {sizes.start:,} to {sizes[-1]:,}")
        # what follows the frame would be read by nobody
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=declared, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ShardError(f"the events cannot be decompressed: {error}") from error
