"""Shard: equal tars for equal samples, refusal of foreign tars, samples to bytes and back, `decode_sample`."""

import dataclasses
import hashlib
import io
import json
import re
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import respike.data
import simplejpeg
import webdataset
import zstandard
from respike.common.errors import ShardError
from respike.data import open_shards
from respike.data.event_codec import decode_events, encode_events, plane_shapes
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare
from respike.data.shard import (
    ShardReader,
    ShardWriter,
    decode_info,
    decode_members,
    encode_info,
    encode_key_frame,
    encode_sample,
    sample_key,
)
from respike.types import COLORS, ClipInfo

from tests.data.forging import write_shard

SAMPLES = [(f"s{number}", {"a.jpg": b"picture", "json": b"{}" * number}) for number in range(4)]

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


def write_tar(path, entries):
    with tarfile.open(path, "w") as tar:
        for name, kind in entries:
            header = tarfile.TarInfo(name)
            header.type = kind
            header.size = 3 if kind == tarfile.REGTYPE else 0
            header.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(header, io.BytesIO(b"abc") if header.size else None)
    return path


def test_samples_come_back_by_position(tmp_path):
    write_shard(tmp_path / "x.tar", SAMPLES)
    reader = ShardReader(tmp_path / "x.tar")
    assert reader.keys == ["s0", "s1", "s2", "s3"]
    assert [reader.members(number) for number in range(4)] == [members for _, members in SAMPLES]


def test_equal_samples_give_equal_bytes_and_checksum(tmp_path):
    first = write_shard(tmp_path / "x.tar", SAMPLES)
    second = write_shard(tmp_path / "y.tar", iter(SAMPLES))
    content = (tmp_path / "x.tar").read_bytes()
    assert first == second == (4, len(content), hashlib.sha256(content).hexdigest())


FOREIGN = {
    "a path upwards": [("../evil.json", tarfile.REGTYPE)],
    "an absolute path": [("/etc/evil.json", tarfile.REGTYPE)],
    "a folder in the name": [("sub/evil.json", tarfile.REGTYPE)],
    "a symbolic link": [("s.json", tarfile.SYMTYPE)],
    "a hard link": [("s.json", tarfile.LNKTYPE)],
    "a device": [("s.json", tarfile.CHRTYPE)],
    "a folder": [("s.d", tarfile.DIRTYPE)],
    "a repeated name": [("s.json", tarfile.REGTYPE), ("s.json", tarfile.REGTYPE)],
    "interleaved keys": [("a.x", tarfile.REGTYPE), ("b.x", tarfile.REGTYPE), ("a.y", tarfile.REGTYPE)],
    "a name without extension": [("evil", tarfile.REGTYPE)],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_shard_is_refused_and_writes_nothing(tmp_path, what):
    path = write_tar(tmp_path / "foreign.tar", FOREIGN[what])
    with pytest.raises(ShardError, match=r"foreign\.tar"):
        ShardReader(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_cut_within_a_member_is_an_error(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, [("s", {"json": b"x" * 5000})])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ShardError, match=r"x\.tar"):
        ShardReader(path)


def test_no_tar_at_all_is_an_error(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(b"\x89PNG" * 300)
    with pytest.raises(ShardError, match="is not a readable shard"):
        ShardReader(path)


def test_rollback_leaves_no_trace(tmp_path):
    samples = [(f"s{number}", {"a": bytes([number]) * (700 * number + 1), "b": b"x"}) for number in range(6)]
    samples[4][1]["a"] = b"large" * 10_000
    written = write_shard(tmp_path / "plain.tar", samples[:3] + samples[5:])
    with (tmp_path / "rolled.tar").open("wb") as file:
        writer = ShardWriter(file)
        for key, members in samples[:3]:
            writer.add(key, members)
        mark = writer.mark()
        for _ in range(2):
            for key, members in samples[3:5]:
                writer.add(key, members)
            writer.rollback(mark)
        writer.add(*samples[5])
        assert (writer.num_samples, *writer.close()) == written
    assert (tmp_path / "rolled.tar").read_bytes() == (tmp_path / "plain.tar").read_bytes()


def make_planes(color="ycc", threshold=8, height=25, width=34):
    generator = np.random.default_rng(0)
    high = 255 // threshold
    shapes = plane_shapes(2, 3, height, width, color)
    dtype = np.int16 if threshold == 1 else np.int8
    return tuple(generator.integers(-high, high + 1, shape).astype(dtype) for shape in shapes)


def make_sample(color="ycc", threshold=8):
    pictures = np.random.default_rng(1).integers(0, 256, (2, 25, 34)).astype(np.uint8)
    half = np.full((13, 17), 128, np.uint8)
    others = (half, half) if color == "ycc" else (pictures[0], pictures[1])
    keys = [encode_key_frame((picture, *others), color, 90) for picture in pictures]
    return encode_sample(keys, make_planes(color, threshold), threshold, color, INFO)


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize("threshold", [1, 2, 8])
def test_a_sample_survives_the_round_trip(color, threshold):
    clip = decode_members("k", make_sample(color, threshold))
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
    key = sample_key(name, 7)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", key)
    assert len(f"{key}.key00.jpg") <= 100


def test_keys_differ_where_only_what_is_dropped_differs():
    names = ["a b.avi", "a-b.avi", "x/a b.avi", "A b.avi", "a b.mp4", "n" * 99 + "1.avi", "n" * 99 + "2.avi"]
    assert len({sample_key(name, 0) for name in names}) == len(names)


def test_an_events_header_that_asks_for_too_much_is_refused():
    header = struct.pack("<4sBBHHHII", b"RSPK", 1, 1, 8, 60000, 60000, 4_000_000_000, 4_000_000_000)
    with pytest.raises(ShardError, match="asks for"):
        decode_events(header + zstandard.compress(b"\0"))


def test_a_decompression_bomb_is_refused_before_it_opens():
    content = make_sample()["events"]
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(ShardError, match="header says"):
        decode_events(content[:20] + bomb)


def test_a_bomb_without_a_declared_size_is_refused():
    stream = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(stream, closefd=False) as writer:
        writer.write(bytes(50_000_000))
    with pytest.raises(ShardError):
        decode_events(make_sample()["events"][:20] + stream.getvalue())


@pytest.mark.parametrize("place", [0, 4, 5, 6, 8, 10, 12, 16, 25])
def test_a_changed_byte_in_the_events_is_an_error_or_shows(place):
    content = bytearray(make_sample()["events"])
    content[place] ^= 0x40
    try:
        planes, threshold, color = decode_events(bytes(content))
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
        decode_members("k", make_sample() | {"key00.jpg": bytes(jpeg)})


@pytest.mark.parametrize("member", ["events", "json", "key01.jpg"])
def test_a_missing_member_is_named_with_its_sample(member):
    sample = make_sample()
    del sample[member]
    with pytest.raises(ShardError, match=f"sample k7: the member {member} is missing"):
        decode_members("k7", sample)


def test_a_key_frame_of_another_size_is_refused():
    sample = make_sample() | {"key01.jpg": encode_key_frame((np.zeros((8, 8), np.uint8),) * 3, "rgb", 90)}
    with pytest.raises(ShardError, match="key frame is"):
        decode_members("k", sample)


def test_json_with_an_unknown_field_is_refused():
    value = json.loads(make_sample()["json"]) | {"surprise": 1}
    with pytest.raises(ShardError, match="surprise"):
        decode_info(json.dumps(value).encode())


def test_ycc_key_frames_keep_the_planes_colours():
    grey = np.full((16, 16), 90, np.uint8)
    chroma = np.full((8, 8), 128, np.uint8)
    content = encode_key_frame((grey, chroma, np.full((8, 8), 168, np.uint8)), "ycc", 95)
    picture = simplejpeg.decode_jpeg(content, "RGB")
    np.testing.assert_allclose(picture[8, 8], [90 + 1.402 * 40, 90 - 0.714136 * 40, 90], atol=3)


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize("threshold", [1, 8])
def test_events_of_the_first_version_are_read(color, threshold):
    written = make_planes(color, threshold)
    header = struct.pack("<4sBBHHHII", b"RSPK", 1, COLORS.index(color), threshold, *written[0].shape)
    plain = b"".join(plane.tobytes() for plane in written)
    planes, *said = decode_events(header + zstandard.compress(plain))
    assert said == [threshold, color]
    for read, plane in zip(planes, written, strict=True):
        np.testing.assert_array_equal(read, plane)


def test_events_of_a_later_version_are_refused():
    content = bytearray(make_sample()["events"])
    content[4] = 3
    with pytest.raises(ShardError, match="format 3, this respike reads up to 2") as raised:
        decode_events(bytes(content))
    assert raised.value.hint == "update respike"


@pytest.mark.parametrize("version", [1, 2])
def test_an_event_out_of_range_is_refused(version):
    planes = make_planes()
    planes[1][0, 1, 2, 3] = -32
    content = encode_events(planes, 8, "ycc")
    if version == 1:
        content = (
            content[:4] + b"\1" + content[5:20] + zstandard.compress(b"".join(plane.tobytes() for plane in planes))
        )
    with pytest.raises(ShardError, match="the events hold -32, with threshold 8 they end at ±31"):
        decode_events(content)


def test_decode_sample_maps_a_webdataset_pipeline_to_clips(shards):
    index = open_shards(shards, "train").index
    num_shards = sum(shard.subset == "train" for shard in index.shards)
    urls = f"{shards}/train-{{000000..{num_shards - 1:06d}}}.tar"
    clips = list(webdataset.WebDataset(urls, shardshuffle=False).map(respike.data.decode_sample))
    ours = {clip.key: clip for clip in open_shards(shards, "train")}
    assert sorted(clip.key for clip in clips) == sorted(ours)
    for clip in clips:
        assert clip.info == ours[clip.key].info
        np.testing.assert_array_equal(clip.keys, ours[clip.key].keys)
        for plane, other in zip(clip.planes, ours[clip.key].planes, strict=True):
            np.testing.assert_array_equal(plane, other)


def test_decode_sample_refuses_a_sample_that_was_decoded(shards):
    urls = [str(shards / "test-000000.tar")]
    with pytest.raises(ShardError, match=r"sample .*: the member \S+ is not bytes") as error:
        list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").map(respike.data.decode_sample))
    assert "without .decode()" in error.value.hint


def test_plain_webdataset_reads_the_shards(shards):
    samples = list(webdataset.WebDataset([str(shards / "test-000000.tar")], shardshuffle=False).decode("rgb8"))
    assert len(samples) == len(open_shards(shards, "test"))
    assert samples[0]["key00.jpg"].shape == (48, 64, 3)
    assert samples[0]["json"]["class_name"] in ("jump", "wave")
    assert samples[0]["events"][:4] == b"RSPK"


def test_the_datasets_library_reads_the_shards(shards, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "webdataset", data_files={"test": str(shards / "test-*.tar")}, split="test", cache_dir=str(tmp_path)
    )
    assert len(loaded) == len(open_shards(shards, "test"))
    assert loaded[0]["key00.jpg"].size == (64, 48)
    assert loaded[0]["json"]["subset"] == "test"


def test_the_datasets_library_reads_videos_with_and_without_group(listing, tmp_path):
    datasets = pytest.importorskip("datasets")
    # the library takes the types of the fields from the first five samples
    videos = [dataclasses.replace(video, subset="train", group=None) for video in listing.videos]
    videos[8] = dataclasses.replace(videos[8], group="g01")
    out = tmp_path / "out"
    config = PrepareConfig(videos_per_shard=2, short_side=32)
    prepare(dataclasses.replace(listing, videos=tuple(videos)), out, config, executor=run_serially)
    written = [row.group for row in open_shards(out).clips]
    assert written[:5] == [""] * 5
    assert "g01" in written[5:]
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": str(out / "*.tar")}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [sample["group"] for sample in loaded["json"]] == written
    assert {clip.info.group for clip in open_shards(out)} == {"", "g01"}


def test_a_sample_without_group_is_read(shards):
    # as it is in sets in which no video has a group, and was in all sets of earlier versions
    info = dataclasses.replace(open_shards(shards)[0].info, group=None)
    assert b'"group":null' in encode_info(info)
    assert decode_info(encode_info(info)).group is None
