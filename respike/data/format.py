"""The shard contract: member names and bytes ↔ EventClip. Writes version 2, reads 1 too.

A sample is `stride`-independent in form: `KEY.key00.jpg` … one JPEG a group, `KEY.events` with the residual events,
`KEY.json` with everything else. No pickle anywhere. docs/shard-format.md is the contract in words.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from respike.color import Color
from respike.data.events_member import (
    EVENTS_VERSION,
    READ_VERSIONS,
    EventsHeader,
    decode_events,
    encode_events,
    read_events_header,
)
from respike.data.shards import ShardReader
from respike.errors import ShardError
from respike.files import canonical_json
from respike.sample import ClipInfo, EventClip

FORMAT_VERSION, READ_FORMATS = EVENTS_VERSION, READ_VERSIONS
EVENTS_MEMBER = "events"
INFO_MEMBER = "json"

_MAX_KEY_PIXELS = 1 << 26
# a clip of a thousand frames takes less than 50 kB; JSON grows some twentyfold when it is parsed
_MAX_INFO_BYTES = 1 << 20
_TOO_MUCH_INFO = f"the JSON member holds {{:,}} bytes, at most {_MAX_INFO_BYTES:,} are read"
_SLUG_LENGTH = 48
_VERIFY = "run `respike verify` on its folder"


def sample_key(video_id: str, clip_index: int) -> str:
    """A name for a sample that is safe in a tar and a shell, and unique: a readable part, a hash, the clip."""
    name = video_id.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:_SLUG_LENGTH]
    digest = hashlib.blake2b(video_id.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{slug or 'video'}-{digest}-{clip_index:05d}"


def key_member(group: int) -> str:
    """The member name of a group's key frame."""
    return f"key{group:02d}.jpg"


def encode_key_frame(planes: tuple[NDArray[np.uint8], ...], color: Color, quality: int) -> bytes:
    """Encode a key frame as JPEG of `quality` 1 to 100, from planes as `decode` gives them, uint8 `[h, w]` each.

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


def encode_info(info: ClipInfo) -> bytes:
    """Encode what is known of a clip as JSON, byte-identical for equal facts."""
    # the fields as they are: `asdict` copies every number of them, which took a tenth of preparing a small video
    value = dict(vars(info))
    if not info.partial:
        # stands only where it says something, so that whole videos look as they always did
        del value["partial"]
    return canonical_json(value).encode("utf-8", "surrogateescape")


def decode_info(content: bytes) -> ClipInfo:
    """Decode a sample's JSON member. Raises ShardError that names a missing or unknown field."""
    if len(content) > _MAX_INFO_BYTES:
        raise ShardError(_TOO_MUCH_INFO.format(len(content)))
    try:
        value = json.loads(content)
        value["frame_indices"] = tuple(int(index) for index in value["frame_indices"])
        value["times_seconds"] = tuple(float(time) for time in value["times_seconds"])
        return ClipInfo(**value)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ShardError(f"the JSON member does not hold what it should: {error}") from error


def encode_sample(
    key_frames: list[bytes],
    planes: tuple[NDArray[np.signedinteger[Any]], ...],
    threshold: int,
    color: Color,
    info: ClipInfo,
) -> dict[str, bytes]:
    """All members of a sample by their names, in the order in which they are written.

    `key_frames` are N JPEGs, `planes` the clip's events `[N, R, h, w]`, `threshold` θ in grey levels.
    """
    members = {key_member(group): jpeg for group, jpeg in enumerate(key_frames)}
    return members | {EVENTS_MEMBER: encode_events(planes, threshold, color), INFO_MEMBER: encode_info(info)}


def _check_key_frame(content: bytes, size: tuple[int, int]) -> None:
    """Hold the header of a key frame against the (height, width) that it should have; takes no memory."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        raise ShardError(f"a key frame cannot be decoded: {error}") from error
    if height * width > _MAX_KEY_PIXELS:
        raise ShardError(f"a key frame says it has {width}x{height} pixels")
    if size != (height, width):
        raise ShardError(f"a key frame is {(height, width)}, the events are {size}")


def _decode_key_frame(content: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a key frame whose header is known to be right into `out`, uint8 RGB `[H, W, 3]`."""
    try:
        simplejpeg.decode_jpeg(content, "RGB", buffer=out)
    except ValueError as error:
        raise ShardError(f"a key frame cannot be decoded: {error}") from error


def read_sample(reader: ShardReader, position: int, settings: Mapping[str, Any]) -> EventClip:
    """Read and decode one sample of a shard, as `decode_sample` does. Raises ShardError on damage."""
    if (num_bytes := reader.member_sizes(position).get(INFO_MEMBER, 0)) > _MAX_INFO_BYTES:
        # told before it is read, let alone parsed
        raise ShardError(f"sample {reader.keys[position]}: {_TOO_MUCH_INFO.format(num_bytes)}", _VERIFY)
    return decode_sample(reader.keys[position], reader.members(position), settings)


def decode_sample(key: str, members: Mapping[str, bytes], settings: Mapping[str, Any] | None = None) -> EventClip:
    """Decode the members of a sample. Raises ShardError that names the sample and what is wrong with it.

    `settings`, where given, are those of `respike prepare` that the sample must have been made with. All headers are
    read and held against them and each other before memory is taken.
    """
    try:
        header = read_events_header(_member(members, EVENTS_MEMBER))
        if settings is not None:
            _check_settings(header, settings)
        key_frames = [_member(members, key_member(group)) for group in range(header.num_groups)]
        for content in key_frames:
            _check_key_frame(content, (header.height, header.width))
        info = decode_info(_member(members, INFO_MEMBER))
        planes, threshold, color = decode_events(members[EVENTS_MEMBER])
        # channels last in memory, as JPEG's decoder writes them
        pictures = np.empty((header.num_groups, header.height, header.width, 3), np.uint8)
        for picture, content in zip(pictures, key_frames, strict=True):
            _decode_key_frame(content, picture)
    except ShardError as error:
        raise ShardError(f"sample {key}: {error.problem}", error.hint or _VERIFY) from error
    keys = pictures.transpose(0, 3, 1, 2)
    return EventClip(key=key, keys=keys, planes=planes, threshold=threshold, color=color, info=info)


def _check_settings(header: EventsHeader, settings: Mapping[str, Any]) -> None:
    """Raise ShardError where the events were not made with these settings."""
    said = {
        "stride": header.num_residuals + 1,
        "clip_length": header.num_groups * (header.num_residuals + 1),
        "color": header.color,
        "threshold": header.threshold,
    }
    if wrong := [name for name, value in said.items() if value != settings[name]]:
        raise ShardError(
            f"{wrong[0]} of its events is {said[wrong[0]]}, the index says {settings[wrong[0]]}",
            "prepare the data again",
        )
    if (short := min(header.height, header.width)) > settings["short_side"]:
        raise ShardError(
            f"the short side of its events is {short}, the index says at most {settings['short_side']}",
            "prepare the data again",
        )


def _member(members: Mapping[str, bytes], name: str) -> bytes:
    try:
        return members[name]
    except KeyError:
        raise ShardError(f"the member {name} is missing") from None
