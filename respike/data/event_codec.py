"""Event codec: frames to residual events, and events to packed, compressed bytes and back."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

from respike.common.errors import ShardError, UnreadableVideoError
from respike.types import COLORS, Color

EVENTS_VERSION = 2
READ_VERSIONS = (1, 2)
# version 1 stores the planes one after another, without packing
_PLAIN_VERSION = 1
MAX_THRESHOLD = 255
# enough for a 4K clip of 64 frames in `ycc`; a header that asks for more is made to exhaust memory
MAX_EVENT_BYTES = 1 << 30

_MAGIC = b"RSPK"
# magic, version, colour, θ, N, R, then height and width of luma; little-endian
_HEADER = struct.Struct("<4sBBHHHII")
_ZSTD_LEVEL = 1

# rows between two rows that are stored without the difference to the row above
_BAND = 32
# half a byte holds a difference from -7 to 7 as 0 to 14; 15 marks an outlier, which is stored on its own
_ZERO, _OUTLIER = 7, 15
# a column of the packed array: eight events, two a byte
_COLUMN = 8

Events = NDArray[np.signedinteger[Any]]


def event_dtype(threshold: int) -> np.dtype[Any]:
    """Return the type that events are stored in: int8, or int16 for θ = 1, where events reach ±255."""
    return np.dtype(np.int16 if threshold < 2 else np.int8)


def residual_events(frame: NDArray[np.uint8], key_frame: NDArray[np.uint8], threshold: int, out: Events) -> None:
    """Write the events of one plane of a frame against the same plane of its key frame into `out`.

    `frame` and `key_frame` are uint8 `[H, W]`. `out` is `[H, W]` of `event_dtype(threshold)`, in steps of `threshold`:
    `trunc((frame - key_frame) / threshold)`.
    """
    if threshold == 1:
        np.subtract(frame, key_frame, out=out, dtype=np.int16)
        return
    # saturating differences in both directions: one of the two is always 0 and each fits 8 bits, so all arithmetic is
    # on bytes; 255 // 2 = 127 fits int8
    brighter, darker = cv2.subtract(frame, key_frame), cv2.subtract(key_frame, frame)
    step = np.uint8(threshold)
    np.floor_divide(brighter, step, out=brighter)
    np.floor_divide(darker, step, out=darker)
    np.subtract(brighter, darker, out=out.view(np.uint8))


def plane_shapes(num_groups: int, num_residuals: int, height: int, width: int, color: Color) -> list[tuple[int, ...]]:
    """Return the shapes of the three stored planes: chroma of `ycc` is halved in both directions, rounded up."""
    luma = (num_groups, num_residuals, height, width)
    chroma = luma if color == "rgb" else (num_groups, num_residuals, -(-height // 2), -(-width // 2))
    return [luma, chroma, chroma]


def allocate_planes(
    num_groups: int, num_residuals: int, height: int, width: int, color: Color, threshold: int
) -> tuple[Events, ...]:
    """Return three uninitialized event planes for a clip, with the shapes of `plane_shapes`.

    The type is int8, or int16 where `threshold` is 1. Raises UnreadableVideoError where they would take more than
    `MAX_EVENT_BYTES`, which no reader accepts.
    """
    shapes = plane_shapes(num_groups, num_residuals, height, width, color)
    num_bytes = sum(map(math.prod, shapes)) * event_dtype(threshold).itemsize
    if num_bytes > MAX_EVENT_BYTES:
        raise UnreadableVideoError(
            "encode", f"the events of a clip of {width}x{height} take {num_bytes:,} bytes, at most {MAX_EVENT_BYTES:,}"
        )
    return tuple(np.empty(shape, event_dtype(threshold)) for shape in shapes)


def encode_events(planes: tuple[Events, ...], threshold: int, color: Color) -> bytes:
    """Encode the event planes of a clip, `[N, R, h, w]` as in EventClip, as one member that describes itself.

    `threshold` is θ in grey levels. Equal planes give equal bytes.
    """
    num_groups, num_residuals, height, width = planes[0].shape
    header = _HEADER.pack(
        _MAGIC, EVENTS_VERSION, COLORS.index(color), threshold, num_groups, num_residuals, height, width
    )
    return header + zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(pack(planes, color))


def decode_events(content: bytes) -> tuple[tuple[Events, ...], int, Color]:
    """Decode an events member to (planes, threshold, colour); planes are `[N, R, h, w]`, int8 or, for θ = 1, int16.

    Raises ShardError on damage and on events out of range. Memory is allocated only after the sizes were checked.
    """
    header = read_events_header(content)
    stored = _decompress(memoryview(content)[_HEADER.size :], header.stored_sizes)
    if header.version != _PLAIN_VERSION:
        planes = unpack(stored, *header.sizes, threshold=header.threshold)
    else:
        flat = np.frombuffer(stored, dtype=event_dtype(header.threshold).newbyteorder("<"))
        _check_largest(flat, header.threshold)
        parts = np.split(flat, np.cumsum([math.prod(shape) for shape in header.shapes])[:-1])
        planes = tuple(part.reshape(shape) for part, shape in zip(parts, header.shapes, strict=True))
    return planes, header.threshold, header.color


def _decompress(content: memoryview, sizes: range) -> bytes:
    try:
        if (declared := zstandard.frame_content_size(content)) not in sizes:
            raise ShardError(f"the events hold {declared:,} bytes, their header says {sizes.start:,} to {sizes[-1]:,}")
        # nobody would read what follows the frame
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=declared, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ShardError(f"the events cannot be decompressed: {error}") from error


@dataclass(frozen=True, kw_only=True)
class EventsHeader:
    """Header of an events member: θ, colour, and the sizes N, R, H, W of luma."""

    version: int
    threshold: int
    color: Color
    num_groups: int
    num_residuals: int
    height: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int, int, Color]:
        """N, R, H, W and the colour, which decide the shapes of the planes."""
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
        """How many bytes the compressed part may hold."""
        if self.version == _PLAIN_VERSION:
            return range(self.num_bytes, self.num_bytes + 1)
        return packed_sizes(*self.sizes, threshold=self.threshold)


def read_events_header(content: bytes) -> EventsHeader:
    """Read the header of an events member, without decompressing. Raises ShardError on invalid or too large values."""
    if len(content) < _HEADER.size:
        raise ShardError("the events member is shorter than its header")
    magic, version, color_code, threshold, *sizes = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise ShardError("the events member does not begin with RSPK")
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
        raise ShardError(
            f"the events header asks for {header.num_bytes:,} bytes, at most {MAX_EVENT_BYTES:,} are allowed"
        )
    return header


def packed_frame_size(height: int, width: int, color: Color) -> tuple[int, int]:
    """Return the rows and columns that a frame of `height` x `width` pixels of luma takes in the packed array."""
    columns = width if color == "rgb" else 2 * -(-width // 2)
    return (3 * height if color == "rgb" else height + -(-height // 2)), -(-columns // _COLUMN) * _COLUMN


def _plane_regions(height: int, width: int, color: Color) -> tuple[tuple[slice, slice], ...]:
    """Return the rows and columns of the three planes in a frame of the packed array: chroma is below luma."""
    if color == "rgb":
        return tuple((slice(top, top + height), slice(width)) for top in (0, height, 2 * height))
    half = -(-width // 2)
    return (
        (slice(height), slice(width)),
        (slice(height, None), slice(half)),
        (slice(height, None), slice(half, 2 * half)),
    )


def pack(planes: Sequence[Events], color: Color) -> bytes:
    """Pack the event planes of a clip, `[N, R, h, w]` each, int8 or int16, for a compressor of bytes.

    Stores differences from one residual to the next and from one row to the next. Each takes half a byte; larger
    ones, the outliers, follow at the end.
    """
    kind = planes[0].dtype
    num_groups, num_residuals, height, width = planes[0].shape
    rows, columns = packed_frame_size(height, width, color)
    packed = np.empty((rows, num_residuals, num_groups, columns), kind)
    regions = _plane_regions(height, width, color)
    # chroma ends at the same column as luma, or one later
    packed[..., regions[-1][1].stop :] = 0
    packed[:height, ..., width:] = 0
    for plane, (down, across) in zip(planes, regions, strict=True):
        region = packed[down, ..., across].transpose(2, 1, 0, 3)
        region[:, 0] = plane[:, 0]
        np.subtract(plane[:, 1:], plane[:, :-1], out=region[:, 1:])
    steps = np.empty_like(packed)
    np.subtract(packed[1:], packed[:-1], out=steps[1:])
    steps[::_BAND] = packed[::_BAND]
    # as unsigned numbers, values below -7 or above 7 are large; all is modulo 256, or 65,536
    codes = steps.view(_unsigned(kind)).reshape(-1)
    codes += _ZERO
    outliers = _positions(codes >= _OUTLIER)
    values = codes[outliers].astype(_unsigned(kind).newbyteorder("<"), copy=False)
    codes[outliers] = _OUTLIER
    pairs = codes.astype(np.uint8, copy=False).view("<u2")
    # little-endian: the left one of two neighbours is the lower byte; it goes to the upper half of the result
    halves = (pairs << 4 | pairs >> 8).astype(np.uint8)
    in_columns = np.asarray(cv2.transpose(halves.view(np.int32).reshape(rows, -1)))
    return in_columns.tobytes() + values.tobytes()


def packed_sizes(
    num_groups: int, num_residuals: int, height: int, width: int, color: Color, threshold: int = 2
) -> range:
    """Return how many bytes the packed planes of such a clip may take; `threshold` is θ in grey levels."""
    size = event_dtype(threshold).itemsize
    rows, columns = packed_frame_size(height, width, color)
    num_codes = num_groups * num_residuals * rows * columns
    return range(num_codes // 2, num_codes // 2 + num_codes * size + 1, size)


def unpack(
    content: bytes, num_groups: int, num_residuals: int, height: int, width: int, color: Color, threshold: int = 2
) -> tuple[Events, ...]:
    """Undo `pack`: return planes `[N, R, h, w]` of `event_dtype(threshold)`, views of one array, contiguous in rows.

    `content` has one of `packed_sizes`. Raises ShardError where it was not made by `pack`, and where an event times
    `threshold`, θ in grey levels, is beyond ±255.
    """
    rows, columns = packed_frame_size(height, width, color)
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
    outliers = _positions(codes == _OUTLIER)
    if len(outliers) != len(values):
        raise ShardError(f"the events hold {len(values):,} outliers, {len(outliers):,} are marked")
    differences = codes.astype(_unsigned(kind), copy=False)
    differences[outliers] = values
    differences -= _ZERO
    packed = differences.view(kind).reshape(rows, num_residuals, num_groups * columns)
    for step in range(1, num_residuals):
        packed[:, step] += packed[:, step - 1]
    _add_rows(packed.reshape(rows, -1))
    _check_largest(packed, threshold)
    frames = packed.reshape(rows, num_residuals, num_groups, columns)
    regions = _plane_regions(height, width, color)
    if frames[:height, ..., width:].any() or frames[..., regions[-1][1].stop :].any():
        raise ShardError("there are events outside of the picture")
    return tuple(frames[down, ..., across].transpose(2, 1, 0, 3) for down, across in regions)


def _add_rows(packed: Events) -> None:
    """Add to each row the row above it, band by band."""
    whole = len(packed) // _BAND * _BAND
    # all bands at once: one addition for each row of a band
    for bands in (packed[:whole].reshape(-1, _BAND, packed.shape[1]), packed[None, whole:]):
        for row in range(1, bands.shape[1]):
            bands[:, row] += bands[:, row - 1]


def _unsigned(kind: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{kind.itemsize}")


def _check_largest(events: Events, threshold: int) -> None:
    """Raise ShardError where an event times `threshold` is beyond ±255, the largest difference of 8-bit samples."""
    most = 255 // threshold
    if (low := int(events.min())) < -most or (high := int(events.max())) > most:
        value = low if low < -most else high
        raise ShardError(f"the events hold {value}, with threshold {threshold} they end at ±{most}")


def _positions(marks: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where `marks` `[8 n]` are set. Few are, so words of eight are checked first, which is twice as fast."""
    words = np.flatnonzero(marks.view(np.uint64) != 0)
    within = np.flatnonzero(marks.reshape(-1, 8)[words])
    positions: NDArray[np.intp] = words[within >> 3] * 8 + (within & 7)
    return positions
