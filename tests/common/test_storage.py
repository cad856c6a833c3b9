"""Remote folders promise: what they say is written is written; what a network spoils is tried again, then one error."""

import pickle

import fsspec
import pytest
from respike.common import storage
from respike.common.errors import RespikeError
from respike.common.storage import RemoteFolder

from tests.data.stores import make_store


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(storage, "_FIRST_PAUSE_SECONDS", 0)


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * 5000)
    return path


@pytest.fixture(params=["memory", "faulty"])
def folder(request, tmp_path):
    address = f"memory://{tmp_path.name}/set" if request.param == "memory" else make_store(tmp_path / "store")
    return RemoteFolder(address)


def test_what_is_written_reads_back(folder, large, tmp_path):
    folder.write("a/small.json", "{}")
    folder.upload(large, "large.bin")
    assert folder.read("a/small.json") == b"{}"
    assert folder.sizes() == {"large.bin": 1_280_000}
    assert folder.read_all("a") == {"small.json": b"{}"}
    copy = tmp_path / "copy.bin"
    sha256 = folder.download("large.bin", copy)
    assert copy.read_bytes() == large.read_bytes()
    assert sha256 == storage._digest(large, "sha256")


def test_a_file_is_replaced_and_removed(folder):
    folder.write("x", b"1")
    folder.write("x", b"22")
    assert folder.read("x") == b"22"
    folder.remove("x")
    folder.remove("x")
    assert folder.read("x") is None


def test_nothing_there_reads_as_nothing(folder):
    assert folder.sizes("absent") == {}
    assert folder.read("absent") is None
    assert folder.read_all("absent") == {}


@pytest.mark.parametrize("num_failures", [1, storage.MAX_ATTEMPTS])
def test_a_small_file_that_fails_to_come_is_not_taken_for_one_that_is_gone(folder, monkeypatch, num_failures):
    monkeypatch.setattr(storage, "_FIRST_PAUSE_SECONDS", 0)
    folder.write("a/mark.json", b"{}")
    real, calls = type(folder._system).cat_file, []

    def cat_file(self, path, **options):
        calls.append(path)
        if len(calls) <= num_failures:
            raise TimeoutError("the store is slow today")
        return real(self, path, **options)

    monkeypatch.setattr(type(folder._system), "cat_file", cat_file)
    if num_failures == 1:
        assert folder.read_all("a") == {"mark.json": b"{}"}
    else:
        with pytest.raises(RespikeError, match=r"cannot read a under .*slow today"):
            folder.read_all("a")


def test_it_pickles_to_workers(folder):
    folder.write("x", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("x") == b"1"


@pytest.mark.parametrize("fault", ["fail_every", "cut_every", "flip_every"])
def test_a_write_that_went_wrong_is_done_again(tmp_path, large, fault):
    folder = RemoteFolder(make_store(tmp_path / "store", **{fault: 2}))
    for number in range(4):
        folder.upload(large, f"{number}.bin")
        folder.write(f"{number}.json", f"{number}")
    assert all(folder.read(f"{number}.bin") == large.read_bytes() for number in range(4))
    assert all(folder.read(f"{number}.json") == b"%d" % number for number in range(4))


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"fail_every": 1}, "connection reset by peer"),
        ({"cut_every": 1}, "holds 640,000 bytes there, 1,280,000 were sent"),
        ({"flip_every": 1}, "reads otherwise than it was sent"),
        ({"gone_after": 0}, "no route to host"),
    ],
)
def test_a_store_that_keeps_failing_is_one_clear_error(tmp_path, large, faults, reason):
    folder = RemoteFolder(make_store(tmp_path / "store", **faults))
    with pytest.raises(RespikeError, match=r"cannot write large\.bin under faulty://") as error:
        folder.upload(large, "large.bin")
    assert reason in error.value.problem
    assert "\n" not in str(error.value)


def test_a_small_file_that_is_cut_is_never_taken_for_written(tmp_path):
    folder = RemoteFolder(make_store(tmp_path / "store", cut_every=1))
    with pytest.raises(RespikeError, match="reads otherwise"):
        folder.write("x.json", '{"a": 1}')


def test_a_half_upload_never_stands_under_the_name(tmp_path, large):
    folder = RemoteFolder(make_store(tmp_path / "store", fail_every=1))
    with pytest.raises(RespikeError):
        folder.upload(large, "large.bin")
    make_store(tmp_path / "store")
    assert "large.bin" not in folder.sizes()


def test_what_cannot_be_mended_is_not_tried_again(tmp_path, monkeypatch):
    folder = RemoteFolder(f"memory://{tmp_path.name}/set")
    tries = []

    def refuse(*_, **__):
        tries.append(1)
        raise PermissionError("not yours")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", refuse)
    with pytest.raises(RespikeError, match="not yours"):
        folder.read("x")
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("facts", "md5"),
    [
        ({"md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg=="}, "d41d8cd98f00b204e9800998ecf8427e"),
        ({"content_md5": bytearray.fromhex("d41d8cd98f00b204e9800998ecf8427e")}, "d41d8cd98f00b204e9800998ecf8427e"),
        ({"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}, "d41d8cd98f00b204e9800998ecf8427e"),
        ({"ETag": '"d41d8cd98f00b204e9800998ecf8427e-3"'}, None),
        ({}, None),
    ],
)
def test_the_checksum_that_a_store_tells_is_understood(facts, md5):
    assert storage._md5_of(facts) == md5


def test_an_unknown_protocol_is_no_address():
    with pytest.raises(RespikeError, match="no address that respike opens"):
        RemoteFolder("no-such-protocol://bucket/set")
