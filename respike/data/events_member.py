"""The events member of a sample: event planes ↔ one self-describing run of bytes. docs/shard-format.md has the form."""

import math
import struct
from dataclasses import dataclass

import numpy as np
import zstandard

from respike.color import COLORS, Color
from respike.data.events import MAX_THRESHOLD, event_dtype
from respike.data.packing import Events, check_largest, pack, packed_sizes, unpack
from respike.errors import ShardError, UnreadableVideoError

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
