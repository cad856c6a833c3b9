"""Shard promises: the same tar for the same samples, and nothing that respike never writes is read."""

import io
import tarfile

import pytest
from respike.common.errors import ShardError
from respike.data.shard import ShardReader, ShardWriter

from tests.data.forging import write_shard

SAMPLES = [(f"s{number}", {"a.jpg": b"picture", "json": b"{}" * number}) for number in range(4)]


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
    import hashlib

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
    with pytest.raises(ShardError, match="is no shard"):
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
