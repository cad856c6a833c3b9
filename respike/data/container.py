"""Container: finds files that were cut, which ffmpeg mostly decodes as if they were shorter videos.

Only the sizes that the container announces are compared with the file. What a container does not announce is not
checked here. In MPEG-TS, lost packets are distinguished from joined recordings.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_MATROSKA_SEGMENT = 0x18538067
_MATROSKA_CLUSTER = 0x1F43B675
_TS_SYNC = 0x47
_TS_PACKET_BYTES = 188
# the last frame is shown for a while, and tools round
_FLV_TOLERANCE_SECONDS = 1.0
# bytes before each packet, and from one to the next: plain, with a time (AVCHD, Blu-ray), with check bytes
_TS_LAYOUTS = ((0, 188), (4, 192), (0, 204))
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def find_cut(path: Path, format_name: str) -> str | None:
    """Return which bytes a file lacks of what its container announces; None where it lacks none, or is unknown.

    `format_name` is that of ffmpeg, such as `matroska,webm`. ISO (MP4, MOV), Matroska and WebM, AVI, ASF (WMV) and
    most FLV files announce their size; other containers do not.
    """
    for name, check in _CHECKS.items():
        if name in format_name.split(","):
            with path.open("rb") as file:
                return check(file, os.fstat(file.fileno()).st_size)
    return None


def _describe_cut(what: str, num_announced: int, num_available: int) -> str | None:
    if num_announced <= num_available:
        return None
    return f"the file was cut: {what} says {num_announced:,} bytes, {max(0, num_available):,} are there"


def _check_iso(file: IO[bytes], size: int) -> str | None:
    """Check the top-level boxes: media data, movie headers and the range of a segment index must end in the file."""
    at = 0
    while len(head := _read(file, at, 16)) >= 8:
        num_bytes, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
        if num_bytes == 1:
            num_bytes, header = int.from_bytes(head[8:16], "big"), 16
        elif num_bytes == 0:  # to the end of the file
            return None
        if num_bytes < header:
            return None
        if kind in (b"mdat", b"moov", b"moof") and (cut := _describe_cut(f"its {kind.decode()}", num_bytes, size - at)):
            return cut
        if kind == b"sidx":
            num_indexed = _count_indexed_bytes(_read(file, at + header, num_bytes - header))
            if num_indexed and (cut := _describe_cut("its segment index", num_indexed, size - at - num_bytes)):
                return cut
        at += num_bytes
    return None


def _count_indexed_bytes(box: bytes) -> int:
    """Return how many bytes after a segment index it describes; 0 where it is malformed."""
    wide = box[:1] != b"\0"
    at = 12 + (8 if wide else 4)
    first_offset = int.from_bytes(box[at : at + (8 if wide else 4)], "big")
    at += 8 if wide else 4
    count = int.from_bytes(box[at + 2 : at + 4], "big")
    entries = box[at + 4 : at + 4 + 12 * count]
    if len(entries) < 12 * count or not count:
        return 0
    # the first bit says whether an entry is media or another index
    sizes = (int.from_bytes(entries[12 * number : 12 * number + 4], "big") & 0x7FFFFFFF for number in range(count))
    return first_offset + sum(sizes)


def _check_matroska(file: IO[bytes], size: int) -> str | None:
    """Check the elements of the top levels: each with a known size must end in the file."""
    at = 0
    while len(head := _read(file, at, 16)) >= 2:
        identifier, id_length = _vint(head, keep_marker=True)
        num_bytes, size_length = _vint(head[id_length:], keep_marker=False)
        if not id_length or not size_length:
            return None
        start = at + id_length + size_length
        is_unknown = num_bytes == (1 << 7 * size_length) - 1
        what = {_MATROSKA_SEGMENT: "its segment", _MATROSKA_CLUSTER: "a cluster"}.get(identifier, "an element")
        if not is_unknown and (cut := _describe_cut(what, num_bytes, size - start)):
            return cut
        if identifier == _MATROSKA_SEGMENT and not is_unknown:
            return None
        # a live recording has elements of unknown size: check the elements inside
        descends = is_unknown and identifier in (_MATROSKA_SEGMENT, _MATROSKA_CLUSTER)
        if is_unknown and not descends:
            return None
        at = start if descends else start + num_bytes
    return None


def _vint(content: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Return a number of variable length and its number of bytes; (0, 0) where there is none."""
    if not content or not content[0]:
        return 0, 0
    length = 9 - content[0].bit_length()
    if len(content) < length:
        return 0, 0
    value = int.from_bytes(content[:length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def _check_avi(file: IO[bytes], size: int) -> str | None:
    """Check that lists of frames end in the file; a list of unknown size must end with a whole frame."""
    at = 0
    while (head := _read(file, at, 12))[:4] == b"RIFF" and len(head) == 12:
        end = at + 8 + int.from_bytes(head[4:8], "little")
        if cut := _check_riff(file, at + 12, size):
            return cut
        at = end + end % 2
    return None


def _check_riff(file: IO[bytes], at: int, size: int) -> str | None:
    while len(head := _read(file, at, 12)) >= 8:
        kind, num_bytes = head[:4], int.from_bytes(head[4:8], "little")
        if kind == b"RIFF" or not kind.strip(b"\0"):
            return None
        is_frames = kind == b"LIST" and head[8:12] in (b"movi", b"rec ")
        if is_frames and num_bytes in (0, 0xFFFFFFFF):
            at += 12  # the size was never filled in: check the frames themselves
            continue
        if (is_frames or kind[:2].isdigit()) and (cut := _describe_cut("its list of frames", num_bytes, size - at - 8)):
            return cut
        at += 8 + num_bytes + num_bytes % 2
    return None


def _check_asf(file: IO[bytes], size: int) -> str | None:
    """Check the top-level objects: the data object must end in the file."""
    at = 0
    while len(head := _read(file, at, 24)) == 24:
        num_bytes = int.from_bytes(head[16:24], "little")
        if num_bytes < 24:
            return None
        if head[:16] == _ASF_DATA:
            return _describe_cut("its data object", num_bytes, size - at)
        at += num_bytes
    return None


def _check_flv(file: IO[bytes], size: int) -> str | None:
    """Check the file size in the metadata of the first tag; tools that change a file often leave the old size there."""
    head = _read(file, 0, 4096)
    num_announced = _find_flv_number(head, b"filesize")
    if not 0 < num_announced < 1 << 62:
        return None
    cut = _describe_cut("its metadata", int(num_announced), size)
    if cut is None or _has_whole_flv_tags(file, size, _find_flv_number(head, b"duration")):
        return None
    return cut


def _find_flv_number(head: bytes, name: bytes) -> float:
    """Return a number of the metadata, a float64 after its name; 0 where there is none."""
    _, found, after = head.partition(len(name).to_bytes(2, "big") + name + b"\0")
    return float(struct.unpack(">d", after[:8])[0]) if found and len(after) >= 8 else 0.0


def _has_whole_flv_tags(file: IO[bytes], size: int, duration_seconds: float) -> bool:
    """Return whether the last tag ends where the file ends, within a second of the announced duration."""
    at = int.from_bytes(_read(file, 5, 4), "big") + 4
    milliseconds = 0
    while len(head := _read(file, at, 11)) == 11:
        num_bytes = 11 + int.from_bytes(head[1:4], "big")
        if _read(file, at + num_bytes, 4) != num_bytes.to_bytes(4, "big"):
            return False
        # the upper eight bits come last
        milliseconds = max(milliseconds, int.from_bytes(head[7:8] + head[4:7], "big"))
        at += num_bytes + 4
    return at == size and milliseconds / 1000 > duration_seconds - _FLV_TOLERANCE_SECONDS


def find_lost_packets(path: Path, stream_id: int) -> str | None:
    """Return what an MPEG-TS lost of the stream `stream_id`; None where only its packet counters jump.

    Recordings that were joined, and a recording that lacks whole segments, jump from the end of one frame to a frame
    where decoding can begin. Any other jump means that a part of a frame, or a frame that others need, is lost. A frame
    that lacks its end before a jump is found by the decoder. Raises OSError.
    """
    packets = _read_ts_packets(path)
    if packets is None:
        return "its packets are not aligned"
    own = np.flatnonzero((packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2] == stream_id)
    headers = packets[own, :6]
    if (headers[:, 1] & 0x80).any():
        return "the receiver marked a packet as damaged"
    counters, has_payload = headers[:, 3] & 0x0F, headers[:, 3] & 0x10 > 0
    is_start = headers[:, 1] & 0x40 > 0
    # the flags of the adaptation field, which may be empty
    flags = np.where((headers[:, 3] & 0x20 > 0) & (headers[:, 4] > 0), headers[:, 5], 0)
    expected = counters[:-1] + has_payload[1:] & 0x0F
    jumps = 1 + np.flatnonzero((counters[1:] != expected) & (flags[1:] & 0x80 == 0))
    if not (is_start & (flags & 0x40 > 0))[jumps].all():
        return "packets are missing"
    for jump in jumps:
        start = np.flatnonzero(is_start[:jump])[-1:]
        if _lacks_end(packets[own[int(start[0]) if len(start) else 0 : jump]]):
            return "the end of a frame is missing"
    return None


def _read_ts_packets(path: Path) -> NDArray[np.uint8] | None:
    """Return the packets of an MPEG-TS, uint8 `[packets, 188]`, as a view of the file; None where it has gaps."""
    content: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
    for before, step in _TS_LAYOUTS:
        num_packets = (len(content) - before - _TS_PACKET_BYTES) // step + 1
        if num_packets > 0:
            packets = np.lib.stride_tricks.as_strided(content[before:], (num_packets, _TS_PACKET_BYTES), (step, 1))
            if (packets[:, 0] == _TS_SYNC).all():
                return packets
    return None


def _lacks_end(packets: NDArray[np.uint8]) -> bool:
    """Return whether the packets of a frame hold less than its header says; it may leave its size open."""
    payload = b"".join(map(_payload, packets))
    num_announced = int.from_bytes(payload[4:6], "big")
    return num_announced > 0 and len(payload) < 6 + num_announced


def _payload(packet: NDArray[np.uint8]) -> bytes:
    if not packet[3] & 0x10:
        return b""
    return packet[5 + int(packet[4]) if packet[3] & 0x20 else 4 :].tobytes()


def _read(file: IO[bytes], at: int, num_bytes: int) -> bytes:
    # a size of 64 bits may point beyond the end of any file
    file.seek(min(at, 1 << 40))
    # a segment index has tens of thousands of entries at most
    return file.read(min(num_bytes, 1 << 20))


_CHECKS: dict[str, Callable[[IO[bytes], int], str | None]] = {
    "mp4": _check_iso,
    "matroska": _check_matroska,
    "avi": _check_avi,
    "asf": _check_asf,
    "flv": _check_flv,
}
