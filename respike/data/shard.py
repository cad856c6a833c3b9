"""Shard: a tar of samples, and the bytes of a sample, as docs/shard-format.md describes them."""

import hashlib
import json
import mmap
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from respike.common.errors import ShardError
from respike.common.files import canonical_json
from respike.data.event_codec import (
    EVENTS_VERSION,
    READ_VERSIONS,
    Events,
    EventsHeader,
    decode_events,
    encode_events,
    read_events_header,
)
from respike.types import ClipInfo, Color, EventClip

FORMAT_VERSION, READ_FORMATS = EVENTS_VERSION, READ_VERSIONS
EVENTS_MEMBER = "events"
INFO_MEMBER = "json"

# fields of a sample's JSON that are written only for unusual videos, with the value that is left out; all other samples
# keep the bytes that earlier versions wrote
OMITTED_FIELDS = {"partial": False, "mirrored": False, "counted_times": False, "sample_aspect_ratio": "1:1"}

_MAX_KEY_PIXELS = 1 << 26
# a clip of a thousand frames takes less than 50 kB; JSON takes about twenty times its size when it is parsed
_MAX_INFO_BYTES = 1 << 20
_INFO_TOO_LARGE = f"the JSON member holds {{:,}} bytes, at most {_MAX_INFO_BYTES:,} are read"
_MAX_SLUG_LENGTH = 48

_VERIFY = "run `respike verify` on its folder"
_PREPARE_AGAIN = "prepare the data again"
_REBUILD = (
    "`respike verify --repair` on its folder removes it, then the same `respike prepare` makes only this one again"
)
_FOREIGN = "respike did not write this shard; do not use it unless you trust its origin"


@dataclass(frozen=True)
class Savepoint:
    """A position between two samples to which a ShardWriter can roll back."""

    num_samples: int
    offset: int
    digest: "hashlib._Hash"


class ShardWriter:
    """Writes samples to an open file as a tar whose bytes depend on the samples only: no times, owners or modes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._offset = 0
        self.num_samples = 0

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append one sample."""
        for name, content in members.items():
            header = tarfile.TarInfo(f"{key}.{name}")
            header.size = len(content)
            header.mode = 0o644
            self._write(header.tobuf(tarfile.USTAR_FORMAT))
            self._write(content)
            self._write(bytes(-len(content) % tarfile.BLOCKSIZE))
        self.num_samples += 1

    def mark(self) -> Savepoint:
        """Return the position of the next sample, for `rollback`."""
        return Savepoint(self.num_samples, self._offset, self._digest.copy())

    def rollback(self, savepoint: Savepoint) -> None:
        """Remove all samples that were added after `savepoint`."""
        self._file.seek(savepoint.offset)
        self._file.truncate()
        self.num_samples, self._offset = savepoint.num_samples, savepoint.offset
        self._digest = savepoint.digest.copy()

    def close(self) -> tuple[int, str]:
        """Write the end of the tar; return its size in bytes and its SHA-256."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self._offset + end) % tarfile.RECORDSIZE))
        return self._offset, self._digest.hexdigest()

    def _write(self, content: bytes) -> None:
        # hashed while it is written, so that the shard is not read again
        self._digest.update(content)
        self._offset += len(content)
        self._file.write(content)


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


class _PlainMember(tarfile.TarInfo):
    """A member as `ShardWriter` writes it: a regular file with a plain header.

    Raises _ForeignMemberError on everything that tarfile would interpret before it returns a member: long names, pax
    records and sparse maps, which override the header, and negative sizes, which lead back.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_PlainMember":
        member = super().frombuf(buf, encoding, errors)
        if member.type != tarfile.REGTYPE or member.size < 0:
            raise _ForeignMemberError(member.name)
        return member


class _ForeignMemberError(Exception):
    """A member that no shard may hold; the text is its name."""


class ShardReader:
    """Samples of one local shard by position, through a memory map. Members are never extracted.

    The map takes one open file; `close` gives it back until the next sample is read.

    `keys` are the samples' keys in order. To open a shard raises ShardError where the tar is cut, and on everything
    that respike never writes: links, devices, folders, extended headers, repeated names, paths in names, and samples
    whose members do not follow each other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[str] = []
        self._samples: list[list[_Member]] = []
        self._map: mmap.mmap | None = None
        self._read_table()
        self._open()

    def __len__(self) -> int:
        return len(self.keys)

    def members(self, position: int) -> dict[str, bytes]:
        """Return the members of the sample at `position`, by name."""
        content = self._map or self._open()
        return {m.name: content[m.offset : m.offset + m.size] for m in self._samples[position]}

    def close(self) -> None:
        """Close the file until the next sample is read."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def _open(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def member_sizes(self, position: int) -> dict[str, int]:
        """Return the bytes that each member of the sample at `position` takes, by name."""
        return {member.name: member.size for member in self._samples[position]}

    def _read_table(self) -> None:
        seen: set[str] = set()
        try:
            with tarfile.open(self.path, mode="r:", tarinfo=_PlainMember) as tar:
                for header in tar:
                    self._add_member(header, seen)
        except _ForeignMemberError as error:
            raise self._foreign(str(error)) from None
        except (tarfile.TarError, OSError, ValueError) as error:
            raise ShardError(f"{self.path} is not a readable shard: {error}", _REBUILD) from error

    def _foreign(self, name: str) -> ShardError:
        return ShardError(f"{self.path.name} holds {name!r}, which cannot be a member of a sample", _FOREIGN)

    def _add_member(self, header: tarfile.TarInfo, seen: set[str]) -> None:
        key, _, name = header.name.partition(".")
        if not key or not name or "/" in header.name or "\\" in header.name:
            raise self._foreign(header.name)
        if not self.keys or self.keys[-1] != key:
            if key in seen:
                raise ShardError(f"{self.path.name}: the members of sample {key!r} do not follow each other", _FOREIGN)
            seen.add(key)
            self.keys.append(key)
            self._samples.append([])
        if any(member.name == name for member in self._samples[-1]):
            raise ShardError(f"{self.path.name} holds {header.name!r} twice", _FOREIGN)
        self._samples[-1].append(_Member(name, header.offset_data, header.size))


def decode_sample(sample: Mapping[str, Any]) -> EventClip:
    """Turn one sample of a `webdataset` pipeline into an EventClip.

    `sample` is a dict as `webdataset.WebDataset(urls)` yields it: `__key__`, and the bytes of each member by name. Use
    it in place of `.decode()`:

        webdataset.WebDataset("shards/x/train-{000000..000009}.tar").map(respike.data.decode_sample)

    Raises ShardError that names the sample and what is wrong with it, also where `.decode()` came before.
    """
    key = str(sample.get("__key__", "without __key__"))
    members = {name: content for name, content in sample.items() if not name.startswith("__")}
    if decoded := [name for name, content in members.items() if not isinstance(content, bytes)]:
        raise ShardError(f"sample {key}: the member {decoded[0]} is not bytes", "map decode_sample without .decode()")
    return decode_members(key, members)


def read_sample(reader: ShardReader, position: int, settings: Mapping[str, Any]) -> EventClip:
    """Read and decode the sample at `position`, as `decode_members` does. Raises ShardError on damage."""
    if (num_bytes := reader.member_sizes(position).get(INFO_MEMBER, 0)) > _MAX_INFO_BYTES:
        # checked before the member is read
        raise ShardError(f"sample {reader.keys[position]}: {_INFO_TOO_LARGE.format(num_bytes)}", _VERIFY)
    return decode_members(reader.keys[position], reader.members(position), settings)


def decode_members(key: str, members: Mapping[str, bytes], settings: Mapping[str, Any] | None = None) -> EventClip:
    """Decode the members of a sample. Raises ShardError that names the sample and what is wrong with it.

    `settings`, where given, are those of `respike prepare` that the sample must have been made with. All headers are
    compared with them and with each other before memory is allocated.
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
        # channels last in memory, as the JPEG decoder writes them
        pictures = np.empty((header.num_groups, header.height, header.width, 3), np.uint8)
        for picture, content in zip(pictures, key_frames, strict=True):
            _decode_key_frame(content, picture)
    except ShardError as error:
        raise ShardError(f"sample {key}: {error.problem}", error.hint or _VERIFY) from error
    keys = pictures.transpose(0, 3, 1, 2)
    return EventClip(key=key, keys=keys, planes=planes, threshold=threshold, color=color, info=info)


def _check_key_frame(content: bytes, size: tuple[int, int]) -> None:
    """Check that the header of a key frame says (height, width) `size`, without decoding it."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        raise ShardError(f"a key frame cannot be decoded: {error}") from error
    if height * width > _MAX_KEY_PIXELS:
        raise ShardError(f"a key frame says it has {width}x{height} pixels")
    if size != (height, width):
        raise ShardError(f"a key frame is {(height, width)}, the events are {size}")


def _decode_key_frame(content: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a key frame whose header was checked into `out`, uint8 RGB `[H, W, 3]`."""
    try:
        simplejpeg.decode_jpeg(content, "RGB", buffer=out)
    except ValueError as error:
        raise ShardError(f"a key frame cannot be decoded: {error}") from error


def decode_info(content: bytes) -> ClipInfo:
    """Decode the JSON member of a sample. Raises ShardError that names a missing or unknown field."""
    if len(content) > _MAX_INFO_BYTES:
        raise ShardError(_INFO_TOO_LARGE.format(len(content)))
    try:
        value = json.loads(content)
        value["frame_indices"] = tuple(int(index) for index in value["frame_indices"])
        value["times_seconds"] = tuple(float(time) for time in value["times_seconds"])
        return ClipInfo(**value)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ShardError(f"the JSON member does not hold what it should: {error}") from error


def _check_settings(header: EventsHeader, settings: Mapping[str, Any]) -> None:
    """Raise ShardError where the events were made with other settings."""
    actual = {
        "stride": header.num_residuals + 1,
        "clip_length": header.num_groups * (header.num_residuals + 1),
        "color": header.color,
        "threshold": header.threshold,
    }
    if wrong := [name for name, value in actual.items() if value != settings[name]]:
        raise ShardError(
            f"{wrong[0]} of its events is {actual[wrong[0]]}, the index says {settings[wrong[0]]}",
            _PREPARE_AGAIN,
        )
    if (short := min(header.height, header.width)) > settings["short_side"]:
        raise ShardError(
            f"the short side of its events is {short}, the index says at most {settings['short_side']}",
            _PREPARE_AGAIN,
        )


def _member(members: Mapping[str, bytes], name: str) -> bytes:
    try:
        return members[name]
    except KeyError:
        raise ShardError(f"the member {name} is missing") from None


def sample_key(video_id: str, clip_index: int) -> str:
    """Return a unique name for a sample, safe in a tar and a shell: a readable part, a hash, the clip's number."""
    name = video_id.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:_MAX_SLUG_LENGTH]
    digest = hashlib.blake2b(video_id.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{slug or 'video'}-{digest}-{clip_index:05d}"


def key_member(group: int) -> str:
    """Return the member name of the key frame of a group."""
    return f"key{group:02d}.jpg"


def encode_sample(
    key_frames: list[bytes],
    planes: tuple[Events, ...],
    threshold: int,
    color: Color,
    info: ClipInfo,
) -> dict[str, bytes]:
    """Return the members of a sample by name, in the order in which they are written.

    `key_frames` are N JPEGs, `planes` the events of the clip `[N, R, h, w]`, `threshold` θ in grey levels.
    """
    members = {key_member(group): jpeg for group, jpeg in enumerate(key_frames)}
    return members | {EVENTS_MEMBER: encode_events(planes, threshold, color), INFO_MEMBER: encode_info(info)}


def encode_key_frame(planes: tuple[NDArray[np.uint8], ...], color: Color, quality: int) -> bytes:
    """Encode a key frame as JPEG of `quality` 1 to 100, from the planes of a decoded frame, uint8 `[h, w]` each.

    The planes of `ycc` are stored as they are, since JPEG uses the same colours.
    """
    if color == "ycc":
        luma, blue, red = planes
        height, width = luma.shape
        if height % 2 or width % 2:
            # the encoder reads luma in pairs of rows and columns: past the edge it must not read random bytes
            luma = np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]
        return bytes(simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality=quality))
    return bytes(simplejpeg.encode_jpeg(np.stack(planes, axis=-1), quality=quality, colorspace="RGB"))


def encode_info(info: ClipInfo) -> bytes:
    """Encode a ClipInfo as JSON; equal infos give equal bytes."""
    # not `asdict`, which copies every number: that took a tenth of the time to prepare a small video
    value = dict(vars(info))
    for name, usual in OMITTED_FIELDS.items():
        if value[name] == usual:
            del value[name]
    return canonical_json(value).encode("utf-8", "surrogateescape")
