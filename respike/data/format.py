"""The shard contract: member names and bytes ↔ EventClip. Version 1.

A sample is `stride`-independent in form: `KEY.key00.jpg` … one JPEG a group, `KEY.events` with the residual events,
`KEY.json` with everything else. No pickle anywhere. docs/shard-format.md is the contract in words.
"""

import dataclasses
import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
import zstandard
from numpy.typing import NDArray

from respike.color import COLORS, Color
from respike.data.events import event_dtype
from respike.errors import ShardError
from respike.files import canonical_json
from respike.sample import ClipInfo, EventClip

FORMAT_VERSION = 1
EVENTS_MEMBER = "events"
INFO_MEMBER = "json"

_MAGIC = b"RSPK"
# magic, version, colour, θ, N, R, then height and width of luma; little-endian
_HEADER = struct.Struct("<4sBBHHHII")
_ZSTD_LEVEL = 1
# a whole 4K clip of 64 frames fits; what claims more is made to exhaust memory
MAX_EVENT_BYTES = 1 << 30
_MAX_KEY_PIXELS = 1 << 26
_SLUG_LENGTH = 48


def sample_key(video_id: str, clip_index: int) -> str:
    """A name for a sample that is safe in a tar and a shell, and unique: a readable part, a hash, the clip."""
    name = video_id.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:_SLUG_LENGTH]
    digest = hashlib.blake2b(video_id.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{slug or 'video'}-{digest}-{clip_index:05d}"


def key_member(group: int) -> str:
    """The member name of a group's key frame."""
    return f"key{group:02d}.jpg"


def plane_shapes(num_groups: int, num_residuals: int, height: int, width: int, color: Color) -> list[tuple[int, ...]]:
    """Shapes of the three stored planes: chroma of `ycc` is halved in both directions, rounded up."""
    luma = (num_groups, num_residuals, height, width)
    chroma = luma if color == "rgb" else (num_groups, num_residuals, -(-height // 2), -(-width // 2))
    return [luma, chroma, chroma]


def encode_key_frame(planes: tuple[NDArray[np.uint8], ...], color: Color, quality: int) -> bytes:
    """Encode a key frame as JPEG of `quality` 1 to 100, from planes as `decode` gives them.

    The planes of `ycc` are JPEG's own, so they are written without passing through RGB.
    """
    if color == "ycc":
        luma, blue, red = planes
        height, width = luma.shape
        if height % 2 or width % 2:
            # the encoder reads luma in pairs of rows and columns; what it finds past the edge must not be chance
            luma = np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]
        return bytes(simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality=quality))
    return bytes(simplejpeg.encode_jpeg(np.stack(planes, axis=-1), quality=quality, colorspace="RGB"))


def make_planes(
    num_groups: int, num_residuals: int, height: int, width: int, color: Color, threshold: int
) -> tuple[NDArray[np.signedinteger[Any]], ...]:
    """Three event planes for a clip, not filled in, that lie in memory as `encode_events` writes them: one by one."""
    shapes = plane_shapes(num_groups, num_residuals, height, width, color)
    num_samples = [math.prod(shape) for shape in shapes]
    flat = np.empty(sum(num_samples), event_dtype(threshold))
    parts = np.split(flat, np.cumsum(num_samples)[:-1])
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))


def _joined(planes: tuple[NDArray[np.signedinteger[Any]], ...]) -> NDArray[np.signedinteger[Any]]:
    """The planes' samples in a row; without a copy where they come from `make_planes`."""
    whole = planes[0].base
    if (
        isinstance(whole, np.ndarray)
        and whole.flags.c_contiguous
        and whole.ndim == 1
        and all(plane.base is whole and plane.flags.c_contiguous for plane in planes)
        and whole.size == sum(plane.size for plane in planes)
        and [plane.ctypes.data for plane in planes]
        == [whole.ctypes.data + whole.itemsize * first for first in (0, planes[0].size, whole.size - planes[2].size)]
    ):
        return whole
    return np.concatenate([plane.ravel() for plane in planes])


def encode_events(planes: tuple[NDArray[np.signedinteger[Any]], ...], threshold: int, color: Color) -> bytes:
    """Encode the event planes of a clip (shapes as in EventClip) as one self-describing member."""
    num_groups, num_residuals, height, width = planes[0].shape
    header = _HEADER.pack(
        _MAGIC, FORMAT_VERSION, COLORS.index(color), threshold, num_groups, num_residuals, height, width
    )
    content = _joined(planes).astype(event_dtype(threshold).newbyteorder("<"), copy=False)
    return header + zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content.data)


def decode_events(content: bytes) -> tuple[tuple[NDArray[np.signedinteger[Any]], ...], int, Color]:
    """Decode an events member to (planes, threshold, colour). Raises ShardError before taking memory for nonsense."""
    if len(content) < _HEADER.size:
        raise ShardError("the events member is shorter than its header")
    magic, version, color_code, threshold, num_groups, num_residuals, height, width = _HEADER.unpack_from(content)
    sizes = (num_groups, num_residuals, height, width)
    if magic != _MAGIC:
        raise ShardError("the events member does not begin with its magic number")
    if version != FORMAT_VERSION:
        raise ShardError(f"events are of format {version}, this respike reads {FORMAT_VERSION}", "update respike")
    if color_code >= len(COLORS) or threshold < 1 or min(sizes) < 1:
        raise ShardError(f"the events header holds colour {color_code}, threshold {threshold}, sizes {sizes}")
    color = COLORS[color_code]
    dtype = event_dtype(threshold).newbyteorder("<")
    shapes = plane_shapes(num_groups, num_residuals, height, width, color)
    num_samples = [math.prod(shape) for shape in shapes]
    num_bytes = sum(num_samples) * dtype.itemsize
    flat = np.frombuffer(_decompress(content[_HEADER.size :], num_bytes), dtype=dtype)
    parts = np.split(flat, np.cumsum(num_samples)[:-1])
    planes = tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
    return planes, threshold, color


def _decompress(content: bytes, num_bytes: int) -> bytes:
    if num_bytes > MAX_EVENT_BYTES:
        raise ShardError(f"the events header asks for {num_bytes:,} bytes, at most {MAX_EVENT_BYTES:,} are read")
    try:
        declared = zstandard.frame_content_size(content)
        if declared != num_bytes:
            raise ShardError(f"the events hold {declared:,} bytes, their header says {num_bytes:,}")
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=num_bytes)
    except zstandard.ZstdError as error:
        raise ShardError(f"the events cannot be decompressed: {error}") from error


def encode_info(info: ClipInfo) -> bytes:
    """Encode what is known of a clip as JSON, byte-identical for equal facts."""
    value = dataclasses.asdict(info)
    if not info.partial:
        # stands only where it says something, so that whole videos look as they always did
        del value["partial"]
    return canonical_json(value).encode("utf-8", "surrogateescape")


def decode_info(content: bytes) -> ClipInfo:
    """Decode a sample's JSON member. Raises ShardError that names a missing or unknown field."""
    try:
        value = json.loads(content)
        value["frame_indices"] = tuple(int(index) for index in value["frame_indices"])
        value["times_seconds"] = tuple(float(time) for time in value["times_seconds"])
        return ClipInfo(**value)
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"the JSON member does not hold what it should: {error}") from error


def encode_sample(
    key_frames: list[bytes],
    planes: tuple[NDArray[np.signedinteger[Any]], ...],
    threshold: int,
    color: Color,
    info: ClipInfo,
) -> dict[str, bytes]:
    """All members of a sample by their names, in the order in which they are written."""
    members = {key_member(group): jpeg for group, jpeg in enumerate(key_frames)}
    return members | {EVENTS_MEMBER: encode_events(planes, threshold, color), INFO_MEMBER: encode_info(info)}


def decode_key_frame(content: bytes) -> NDArray[np.uint8]:
    """Decode a key frame to uint8 RGB `[H, W, 3]`. Raises ShardError on damage and on absurd sizes."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
        if height * width > _MAX_KEY_PIXELS:
            raise ShardError(f"a key frame says it has {width}x{height} pixels")
        return np.asarray(simplejpeg.decode_jpeg(content, "RGB"))
    except ValueError as error:
        raise ShardError(f"a key frame cannot be decoded: {error}") from error


def decode_sample(key: str, members: Mapping[str, bytes]) -> EventClip:
    """Decode the members of a sample. Raises ShardError that names the sample and what is wrong with it."""
    try:
        planes, threshold, color = decode_events(_member(members, EVENTS_MEMBER))
        num_groups, _, height, width = planes[0].shape
        pictures = [decode_key_frame(_member(members, key_member(group))) for group in range(num_groups)]
        if wrong := [picture.shape for picture in pictures if picture.shape != (height, width, 3)]:
            raise ShardError(f"a key frame is {wrong[0]}, the events are {height}x{width}")
        info = decode_info(_member(members, INFO_MEMBER))
    except ShardError as error:
        raise ShardError(f"sample {key}: {error.problem}", error.hint or "run `respike inspect`") from error
    keys = np.stack(pictures).transpose(0, 3, 1, 2)
    return EventClip(key=key, keys=keys, planes=planes, threshold=threshold, color=color, info=info)


def _member(members: Mapping[str, bytes], name: str) -> bytes:
    try:
        return members[name]
    except KeyError:
        raise ShardError(f"the member {name} is missing") from None
