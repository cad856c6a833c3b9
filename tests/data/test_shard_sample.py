"""Format promises: bytes ↔ EventClip without loss, keys safe anywhere, nonsense refused before memory is taken."""

import io
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import zstandard
from respike.common.errors import ShardError
from respike.data import event_codec
from respike.data import shard as fmt
from respike.types import COLORS, ClipInfo

from tests.data.forging import write_shard

FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "shard-format.md"
INFO = ClipInfo(
    video="a class/ünï ‘quoted’.avi",
    label=3,
    class_name="a class",
    subset="train",
    clip_index=2,
    frame_indices=tuple(range(8)),
    times_seconds=tuple(index / 25 for index in range(8)),
    num_padded=0,
    width=34,
    height=25,
)


def make_planes(color="ycc", threshold=8, height=25, width=34):
    generator = np.random.default_rng(0)
    high = 255 // threshold
    shapes = event_codec.plane_shapes(2, 3, height, width, color)
    dtype = np.int16 if threshold == 1 else np.int8
    return tuple(generator.integers(-high, high + 1, shape).astype(dtype) for shape in shapes)


def make_sample(color="ycc", threshold=8):
    pictures = np.random.default_rng(1).integers(0, 256, (2, 25, 34)).astype(np.uint8)
    half = np.full((13, 17), 128, np.uint8)
    others = (half, half) if color == "ycc" else (pictures[0], pictures[1])
    keys = [fmt.encode_key_frame((picture, *others), color, 90) for picture in pictures]
    return fmt.encode_sample(keys, make_planes(color, threshold), threshold, color, INFO)


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize("threshold", [1, 2, 8])
def test_a_sample_survives_the_round_trip(color, threshold):
    clip = fmt.decode_sample("k", make_sample(color, threshold))
    assert clip.info == INFO
    assert (clip.color, clip.threshold, clip.stride, clip.keys.shape) == (color, threshold, 4, (2, 3, 25, 34))
    for stored, original in zip(clip.planes, make_planes(color, threshold), strict=True):
        np.testing.assert_array_equal(stored, original)


def test_the_same_sample_gives_the_same_bytes():
    assert make_sample() == make_sample()


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize("threshold", [1, 8])
def test_the_documented_reader_reads_events(tmp_path, monkeypatch, color, threshold):
    (code,) = re.findall(r"```python\n(.*?)```", FORMAT_PAGE.read_text(), flags=re.DOTALL)
    write_shard(tmp_path / "train-000000.tar", [("key", make_sample(color, threshold))])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, FORMAT_PAGE.name, "exec"), found := {})
    assert found["theta"] == threshold
    for read, written in zip(found["planes"], make_planes(color, threshold), strict=True):
        np.testing.assert_array_equal(read, written)


@pytest.mark.parametrize(
    "name",
    [
        "a b.avi",
        "x/-rf.avi",
        "ü.mp4",
        "a\nb.mp4",
        "{%d}.mp4",
        "[x]#!&;~@.avi",
        "a.b.c.mp4",
        "n" * 120 + ".avi",
        "é/é.avi",
    ],
)
def test_keys_are_safe_for_tar_and_shell(name):
    key = fmt.sample_key(name, 7)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", key)
    assert len(f"{key}.key00.jpg") <= 100


def test_keys_differ_where_only_what_is_dropped_differs():
    names = ["a b.avi", "a-b.avi", "x/a b.avi", "A b.avi", "a b.mp4", "n" * 99 + "1.avi", "n" * 99 + "2.avi"]
    assert len({fmt.sample_key(name, 0) for name in names}) == len(names)


def test_an_events_header_that_asks_for_too_much_is_refused():
    header = struct.pack("<4sBBHHHII", b"RSPK", 1, 1, 8, 60000, 60000, 4_000_000_000, 4_000_000_000)
    with pytest.raises(ShardError, match="asks for"):
        fmt.decode_events(header + zstandard.compress(b"\0"))


def test_a_decompression_bomb_is_refused_before_it_opens():
    content = make_sample()["events"]
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(ShardError, match="header says"):
        fmt.decode_events(content[:20] + bomb)


def test_a_bomb_without_a_declared_size_is_refused():
    stream = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(stream, closefd=False) as writer:
        writer.write(bytes(50_000_000))
    with pytest.raises(ShardError):
        fmt.decode_events(make_sample()["events"][:20] + stream.getvalue())


@pytest.mark.parametrize("place", [0, 4, 5, 6, 8, 10, 12, 16, 25])
def test_a_changed_byte_in_the_events_is_an_error_or_shows(place):
    content = bytearray(make_sample()["events"])
    content[place] ^= 0x40
    try:
        planes, threshold, color = fmt.decode_events(bytes(content))
    except ShardError:
        return
    assert (threshold, color) != (8, "ycc") or any(
        (a != b).any() for a, b in zip(planes, make_planes(), strict=True) if a.shape == b.shape
    )


def test_a_huge_jpeg_is_refused_from_its_header():
    jpeg = bytearray(make_sample()["key00.jpg"])
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 30000, 30000)
    with pytest.raises(ShardError, match="30000x30000"):
        fmt.decode_sample("k", make_sample() | {"key00.jpg": bytes(jpeg)})


@pytest.mark.parametrize("member", ["events", "json", "key01.jpg"])
def test_a_missing_member_is_named_with_its_sample(member):
    sample = make_sample()
    del sample[member]
    with pytest.raises(ShardError, match=f"sample k7: the member {member} is missing"):
        fmt.decode_sample("k7", sample)


def test_a_key_frame_of_another_size_is_refused():
    sample = make_sample() | {"key01.jpg": fmt.encode_key_frame((np.zeros((8, 8), np.uint8),) * 3, "rgb", 90)}
    with pytest.raises(ShardError, match="key frame is"):
        fmt.decode_sample("k", sample)


def test_json_with_an_unknown_field_is_refused():
    value = json.loads(make_sample()["json"]) | {"surprise": 1}
    with pytest.raises(ShardError, match="surprise"):
        fmt.decode_info(json.dumps(value).encode())


def test_ycc_key_frames_keep_the_planes_colours():
    grey = np.full((16, 16), 90, np.uint8)
    chroma = np.full((8, 8), 128, np.uint8)
    content = fmt.encode_key_frame((grey, chroma, np.full((8, 8), 168, np.uint8)), "ycc", 95)
    picture = simplejpeg.decode_jpeg(content, "RGB")
    np.testing.assert_allclose(picture[8, 8], [90 + 1.402 * 40, 90 - 0.714136 * 40, 90], atol=3)


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize("threshold", [1, 8])
def test_events_of_the_first_version_are_read(color, threshold):
    written = make_planes(color, threshold)
    header = struct.pack("<4sBBHHHII", b"RSPK", 1, COLORS.index(color), threshold, *written[0].shape)
    plain = b"".join(plane.tobytes() for plane in written)
    planes, *said = fmt.decode_events(header + zstandard.compress(plain))
    assert said == [threshold, color]
    for read, plane in zip(planes, written, strict=True):
        np.testing.assert_array_equal(read, plane)


def test_events_of_a_later_version_are_refused():
    content = bytearray(make_sample()["events"])
    content[4] = 3
    with pytest.raises(ShardError, match="format 3, this respike reads up to 2") as raised:
        fmt.decode_events(bytes(content))
    assert raised.value.hint == "update respike"


@pytest.mark.parametrize("version", [1, 2])
def test_an_event_out_of_range_is_refused(version):
    planes = make_planes()
    planes[1][0, 1, 2, 3] = -32
    content = fmt.encode_events(planes, 8, "ycc")
    if version == 1:
        content = (
            content[:4] + b"\1" + content[5:20] + zstandard.compress(b"".join(plane.tobytes() for plane in planes))
        )
    with pytest.raises(ShardError, match="the events hold -32, with threshold 8 they end at ±31"):
        fmt.decode_events(content)
