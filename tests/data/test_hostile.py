"""Shards made to harm are refused: no code of theirs runs, and nothing is written."""

import io
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from respike.common.errors import RespikeError, ShardError
from respike.data import open_shards
from respike.data.event_codec import decode_events, encode_events
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare
from respike.data.shard import ShardReader
from respike.data.verification import verify

from tests.conftest import files_under, listing_of
from tests.data.forging import change_info, forge_member, forge_samples, reseal

SHARD = "train-000000.tar"


@pytest.fixture(scope="module")
def prepared(video_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(listing_of(video_folder), out, PrepareConfig(videos_per_shard=20, short_side=16), executor=run_serially)
    return out


@pytest.fixture
def out(prepared, tmp_path):
    return Path(shutil.copytree(prepared, tmp_path / "out"))


def assert_refused(out: Path, named: str, said: str = "") -> None:
    """The loader and verify name the shard or sample in one line, and change no file."""
    before = files_under(out.parent)
    with pytest.raises(ShardError) as error:
        list(open_shards(out, "train"))
    assert named in error.value.problem
    assert said in error.value.problem
    faults = verify(out).faults
    assert {fault.file for fault in faults} == {SHARD}
    assert any(said in fault.problem for fault in faults)
    assert files_under(out.parent) == before


def member(name: str, content: bytes = b"abc", kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """A tar header and its content."""
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(format=fields.get("format", tarfile.GNU_FORMAT))
    return header + content + b"\0" * (-len(content) % 512)


def with_size(header: bytes, size: bytes) -> bytes:
    """A header whose size field is `size`, with a checksum that fits."""
    changed = bytearray(header[:512])
    changed[124:136] = size.rjust(12, b"0")
    changed[148:156] = b" " * 8
    changed[148:156] = f"{sum(changed):06o}\0 ".encode()
    return bytes(changed) + header[512:]


def pax(name: str, value: str) -> bytes:
    """An extended header that renames, moves or resizes the member that follows it."""
    length = len(f" {name}={value}\n")
    total = next(n for n in range(length, length + 9) if n == length + len(str(n)))
    return member("x", f"{total} {name}={value}\n".encode(), tarfile.XHDTYPE)


HOSTILE = {
    "a path upwards": [member("../evil.json")],
    "a path upwards behind a key": [member("a.json/../../evil")],
    "an absolute path": [member("/tmp/evil.json")],
    "a path of Windows": [member("sub\\evil.json")],
    "a symbolic link": [member("a.json", b"", tarfile.SYMTYPE, linkname="/etc/passwd")],
    "a hard link": [member("a.json", b"", tarfile.LNKTYPE, linkname="../../secret")],
    "a character device": [member("a.json", b"", tarfile.CHRTYPE)],
    "a block device": [member("a.json", b"", tarfile.BLKTYPE)],
    "a FIFO": [member("a.json", b"", tarfile.FIFOTYPE)],
    "a folder": [member("a.json", b"", tarfile.DIRTYPE)],
    "a contiguous file": [member("a.json", b"abc", tarfile.CONTTYPE)],
    "a type that nobody knows": [member("a.json", b"abc", b"Z")],
    "a repeated name": [member("a.json"), member("a.json")],
    "interleaved keys": [member("a.x"), member("b.x"), member("a.y")],
    "a GNU long name": [member("././@LongLink", b"../" * 60 + b"evil.json\0", tarfile.GNUTYPE_LONGNAME), member("a.x")],
    "a GNU long link": [member("././@LongLink", b"/etc/passwd\0", tarfile.GNUTYPE_LONGLINK), member("a.x")],
    "a sparse member": [member("a.json", b"abc", tarfile.GNUTYPE_SPARSE)],
    "a pax name": [pax("path", "../evil.json"), member("a.json")],
    "a pax size": [pax("size", "99999999999"), member("a.json")],
    "a pax sparse map": [pax("GNU.sparse.map", "0,1000000000000"), member("a.json")],
    "a global pax header": [member("x", b"18 path=evil.json\n", tarfile.XGLTYPE), member("a.json")],
    "a size below zero, which leads back": [with_size(member("a.json"), b"\xff" * 11 + b"\x00")],
    "a size beyond the end": [with_size(member("a.json"), b"77777777777\0")],
    "a name without extension": [member("evil")],
    "a name of nothing": [member("")],
    "no tar": [b"\x89PNG" * 300],
    "nothing": [],
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_tar_is_refused_and_nothing_is_written(out, what):
    content = b"".join(HOSTILE[what]) + bytes(1024 if HOSTILE[what] else 0)
    # behind a valid sample, so that the first members look harmless
    key = "k"
    first = b"".join(member(f"{key}.{name}") for name in ("events", "json"))
    path = out / SHARD
    path.write_bytes(content if what in ("no tar", "nothing") else first + content)
    with pytest.raises(ShardError, match=SHARD):
        ShardReader(path)
    # large enough for the samples that a hostile index lists
    path.write_bytes(path.read_bytes() + bytes(200_000 if HOSTILE[what] else 0))
    reseal(out)
    if HOSTILE[what]:
        assert_refused(out, SHARD)


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self._path,)


@pytest.fixture
def pwned(tmp_path):
    """A file that must never be made, and proof that the payload would make it."""
    path = tmp_path / "proof"
    pickle.loads(pickle.dumps(Payload(path)))
    assert path.exists()
    yield tmp_path / "pwned"
    assert not (tmp_path / "pwned").exists()


def object_array(path: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Payload(path)], dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["events", "json", "key00.jpg"])
@pytest.mark.parametrize("make", [lambda path: pickle.dumps(Payload(path)), object_array], ids=["pickle", "array"])
def test_a_pickle_instead_of_a_member_is_refused(out, pwned, name, make):
    key = forge_member(out, SHARD, name, make(pwned))
    assert_refused(out, f"sample {key}: ")


@pytest.mark.parametrize("name", ["pyd", "pickle", "pth", "npy"])
def test_a_pickle_beside_the_members_is_never_read(out, pwned, name):
    key = forge_member(out, SHARD, name, pickle.dumps(Payload(pwned)))
    assert next(iter(open_shards(out, "train"))).key == key
    (fault,) = verify(out).faults
    assert fault.problem == f"sample {key}: it has an unknown member {name}"


@pytest.mark.parametrize("name", ["dataset.json", "videos.jsonl"])
def test_a_pickle_instead_of_the_index_is_refused(out, pwned, name):
    (out / name).write_bytes(pickle.dumps(Payload(pwned)))
    if name == "videos.jsonl":
        reseal(out)
    with pytest.raises(ShardError):
        open_shards(out)
    assert verify(out).faults


ADDRESSES = [
    "pipe:touch {pwned}",
    "PIPE:touch {pwned}",
    "pipe://touch {pwned}",
    "pipe:cat {out}/dataset.json; touch {pwned}",
    "exec:touch {pwned}",
    "shell://touch {pwned}",
    "simplecache::pipe:touch {pwned}",
    "simplecache::file://{out}",
    "filecache::file://{out}",
    "zip://x::file://{out}",
    "tar://x::file://{out}",
    "reference://x",
    "dask://x",
    "git://{out}",
    "jupyter://x",
    "generic://file://{out}",
    "dir://file://{out}",
    "libarchive://x::file://{out}",
    "data:,x",
    "nothing-known://x",
    "smb::memory://x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_could_run_something_is_refused(out, pwned, address):
    with pytest.raises(RespikeError, match=r"is no address that respike opens|cannot be opened") as error:
        open_shards(address.format(pwned=pwned, out=out))
    assert error.value.hint
    assert "\n" not in str(error.value)


def test_an_address_that_needs_a_package_names_it(monkeypatch):
    import fsspec

    def lacking(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(RespikeError, match="Install s3fs"):
        open_shards("s3://bucket/folder")


def test_a_file_address_is_read(out):
    assert open_shards(f"file://{out}").spec == open_shards(out).spec


def set_header(content: bytes, **fields: int) -> bytes:
    """An events member whose header says other sizes."""
    names = ("magic", "version", "color", "threshold", "groups", "residuals", "height", "width")
    values = dict(zip(names, struct.unpack_from("<4sBBHHHII", content), strict=True))
    return struct.pack("<4sBBHHHII", *(values | fields).values()) + content[20:]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"groups": 3}, "clip_length of its events is 12, the index says 16"),
        ({"groups": 5}, "clip_length of its events is 20"),
        ({"residuals": 2}, "stride of its events is 3, the index says 4"),
        ({"color": 1}, "color of its events is rgb, the index says ycc"),
        ({"threshold": 9}, "threshold of its events is 9, the index says 8"),
        ({"height": 15}, "a key frame is (16, 22), the events are (15, 22)"),
        ({"height": 22, "width": 16}, "a key frame is (16, 22), the events are (22, 16)"),
        ({"height": 17, "width": 17}, "the short side of its events is 17, the index says at most 16"),
        ({"groups": 0}, "sizes"),
        ({"threshold": 0}, "threshold 0"),
        ({"threshold": 300}, "threshold 300"),
        ({"version": 3}, "update respike|events are of format 3"),
        ({"width": 4_000_000_000}, "asks for"),
    ],
)
def test_events_of_a_wrong_shape_are_refused_from_their_header(out, fields, said):
    content = ShardReader(out / SHARD).members(0)["events"]
    key = forge_member(out, SHARD, "events", set_header(content, **fields))
    assert_refused(out, f"sample {key}: ", said.rpartition("|")[2])


@pytest.mark.parametrize("value", [32, -32, 127, -128])
def test_an_event_outside_the_possible_range_is_refused(out, value):
    planes, threshold, color = decode_events(ShardReader(out / SHARD).members(0)["events"])
    planes[0][0, 0, 4, 12] = value
    key = forge_member(out, SHARD, "events", encode_events(planes, threshold, color))
    assert_refused(out, f"sample {key}: ", f"the events hold {value}, with threshold 8 they end at ±31")


def test_bytes_behind_the_events_are_refused(out):
    content = ShardReader(out / SHARD).members(0)["events"]
    key = forge_member(out, SHARD, "events", content + b"more")
    assert_refused(out, f"sample {key}: ", "cannot be decompressed")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "recursion"),
        (b"[]", "does not hold what it should"),
        (b"null", "does not hold what it should"),
        (b'{"video": "x"}', "frame_indices"),
        (b"\xff\xfe", "does not hold what it should"),
        (b"", "does not hold what it should"),
    ],
)
def test_json_of_a_wrong_form_is_refused(out, content, said):
    key = forge_member(out, SHARD, "json", content)
    assert_refused(out, f"sample {key}: ", said)


@pytest.mark.parametrize(
    "fields",
    [
        {"frame_indices": [1e400]},
        {"frame_indices": "x"},
        {"times_seconds": [None]},
        {"label": "0"},
        {"label": 1e400},
        {"clip_index": 7},
        {"video": ["x"]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_json_of_wrong_values_is_refused(out, fields):
    content = change_info(ShardReader(out / SHARD).members(0)["json"], **fields)
    key = forge_member(out, SHARD, "json", content)
    assert_refused(out, f"sample {key}")


def test_samples_in_another_order_are_refused(out):
    def change(samples):
        return samples[::-1]

    forge_samples(out, SHARD, change)
    assert_refused(out, "sample ")
