"""Memory: shards that claim more than they hold are refused before memory is allocated."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from respike.data.preparation import PrepareConfig, prepare
from respike.data.shard import ShardReader, encode_key_frame

from tests.conftest import listing_of
from tests.data.forging import forge_member

SHARD = "train-000000.tar"
SPARE_BYTES = 250_000_000
MOST_TAKEN_BYTES = 40_000_000
ZEROS = 1_000_000_000

# reads the shards in three ways with little address space left; prints the errors and the memory used
CHILD = f"""
import json, resource, sys
from pathlib import Path
from respike.data.dataset import open_shards
from respike.data.shard import ShardReader, decode_members
from respike.data.verification import verify
from respike.common.errors import ShardError

out = Path(sys.argv[1])
next(iter(open_shards(out, "test")))
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + {SPARE_BYTES}, taken + {SPARE_BYTES}))

def peak_bytes():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

# reset the peak: a child begins with that of its parent
Path("/proc/self/clear_refs").write_text("5")
before = peak_bytes()

def load():
    list(open_shards(out, "train"))

def look():
    raise ShardError(str(verify(out).faults[0]))

def read_without_index():
    reader = ShardReader(out / "{SHARD}")
    decode_members(reader.keys[0], reader.members(0))

def error_of(read):
    try:
        read()
    except ShardError as error:
        return error.problem

lines = [error_of(load), error_of(look)]
taken = peak_bytes() - before
# here the bytes are in memory already
lines.append(error_of(read_without_index))
print(json.dumps({{"lines": lines, "taken": taken}}))
"""


@pytest.fixture(scope="module")
def prepared(video_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(listing_of(video_folder), out, PrepareConfig(videos_per_shard=20, short_side=16), num_workers=1)
    return out


@pytest.fixture(scope="module")
def zeros():
    """A gigabyte of zeros as zstd, with and without the size that it declares."""
    chunk = bytes(ZEROS // 100)
    frames = []
    for size in (ZEROS, -1):
        frame = zstandard.ZstdCompressor(level=1).compressobj(size=size)
        frames.append(b"".join([*(frame.compress(chunk) for _ in range(100)), frame.flush()]))
    return frames[0], frames[1]


def read_in_three_ways(out: Path) -> list[str]:
    """Return the error of each of three ways to read."""
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, str(out)], capture_output=True, text=True, check=False, timeout=240
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    value = json.loads(answer.stdout)
    assert value["taken"] < MOST_TAKEN_BYTES
    return value["lines"]


def make_bomb(what: str, members: dict[str, bytes], zeros: tuple[bytes, bytes]) -> tuple[str, bytes]:
    """(the member that is replaced, its content)"""
    events = members["events"]
    if what == "zeros that the header does not promise":
        return "events", events[:20] + zeros[0]
    if what == "zeros of no declared size":
        return "events", events[:20] + zeros[1]
    if what == "zeros that the header promises":
        # 12 residuals, chroma halved in both directions: 18 bytes a pixel
        height, width = 16, ZEROS // 18 // 16
        header = struct.pack("<4sBBHHHII", b"RSPK", 1, 0, 8, 4, 3, height, width)
        return "events", header + zstandard.compress(bytes(18 * height * width), 1)
    if what == "a JPEG of 30,000 x 30,000":
        return "key00.jpg", resized(members["key00.jpg"], 30_000, 30_000)
    if what == "a JPEG of 8,000 x 8,000":
        return "key00.jpg", encode_key_frame((np.zeros((8000, 8000), np.uint8),) * 3, "rgb", 1)
    if what == "JSON of 60 MB":
        return "json", b"[" + b"[]," * 20_000_000 + b"[]]"
    raise ValueError(what)


def resized(jpeg: bytes, height: int, width: int) -> bytes:
    """A JPEG whose header says another size."""
    changed = bytearray(jpeg)
    place = changed.index(b"\xff\xc0") + 5
    changed[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(changed)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured in /proc")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("zeros that the header does not promise", "the events hold 1,000,000,000 bytes, their header says"),
        ("zeros of no declared size", "the events hold"),
        ("zeros that the header promises", "a key frame is (16, 22), the events are (16, 3472222)"),
        ("a JPEG of 30,000 x 30,000", "a key frame says it has 30000x30000 pixels"),
        ("a JPEG of 8,000 x 8,000", "a key frame is (8000, 8000), the events are (16, 22)"),
        ("JSON of 60 MB", "the JSON member holds 60,000,004 bytes, at most 1,048,576 are read"),
    ],
)
def test_a_bomb_is_refused_before_it_takes_memory(prepared, tmp_path, zeros, what, said):
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    name, content = make_bomb(what, ShardReader(out / SHARD).members(0), zeros)
    key = forge_member(out, SHARD, name, content)
    lines = read_in_three_ways(out)
    assert [line is not None and f"sample {key}: " in line and said in line for line in lines] == [True] * 3, lines
