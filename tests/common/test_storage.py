"""Storage: only stores that move bytes are opened; what a remote folder reports as written is written."""

import base64
import hashlib
import pickle
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from respike.common import storage
from respike.common.download import fetch
from respike.common.errors import DownloadError, RespikeError, SettingError
from respike.common.storage import RemoteFolder, check_address, is_address, open_address, without_password
from respike.data.acquire import Source

from tests.data.stores import make_store

REFUSED = [
    "python://print",
    "shell://touch x",
    "pipe:touch x",
    "PIPE:touch x",
    "exec:touch x",
    "reference://x",
    "github://owner:repo@main/x",
    "gist://x",
    "git://x",
    "dask://x",
    "jupyter://x",
    "zip://x",
    "data:,x",
    "generic://file:///x",
    "simplecache::file:///x",
    "s3::memory://x",
    "s3://bucket/x::memory://y",
    "s3:bucket/x",
    "nothing-known://x",
]


@pytest.mark.parametrize("address", REFUSED)
def test_another_protocol_is_refused_with_the_allowed_ones(address, tmp_path):
    words = r"is no address that respike opens; allowed are a path and https://, http://, hf://, s3://"
    for refuses, error in (
        (lambda: open_address(address), RespikeError),
        (lambda: fetch(address, tmp_path / "file"), DownloadError),
        (lambda: Source(name="a.zip", addresses=("https://here/a.zip", address), to="x"), SettingError),
    ):
        with pytest.raises(error, match=words) as refused:
            refuses()
        assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/x",
        "HTTPS://host/x",
        "hf://owner/repo",
        "file:///x",
        "./pipe:x",
        "/x",
        "http://[::1]:80/x",
        "https://host/a::b",
    ],
)
def test_stores_and_paths_are_allowed(address):
    check_address(address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("s3://x", True), ("HF://owner/repo", True), ("pipe:x", True)),
        *(("c:/x", False), ("C:\\x", False), ("C://x", False)),
        *(("./pipe:x", False), ("a b:x", False), ("x", False), ("", False)),
    ],
)
def test_anything_like_an_address_counts_as_one(text, expected):
    assert is_address(text) == expected


def test_the_case_of_a_protocol_does_not_matter(tmp_path):
    (tmp_path / "Name").write_text("here")
    for address in (f"FILE://{tmp_path}/Name", f"file://{tmp_path}/Name"):
        system, path = open_address(address)
        assert system.cat_file(path) == b"here"
        assert fetch(address, tmp_path / address.partition(":")[0]).read_text() == "here"


def test_a_protocol_named_in_the_environment_is_allowed(monkeypatch):
    with pytest.raises(RespikeError, match="RESPIKE_PROTOCOLS"):
        check_address("lakefs://x")
    monkeypatch.setenv("RESPIKE_PROTOCOLS", "root lakefs")
    check_address("lakefs://x")
    with pytest.raises(RespikeError, match=r"allowed are .*root://, lakefs://"):
        check_address("git://x")
    with pytest.raises(RespikeError, match="no address that respike opens"):
        check_address("simplecache::lakefs://x")


@pytest.mark.parametrize("address", ["http://[::1]:80/x", "https://host/a::s3://b"])
def test_colons_in_a_web_address_are_not_followed(address, monkeypatch):
    monkeypatch.setattr(fsspec, "filesystem", lambda protocol: f"the {protocol} file system")
    protocol = address.partition(":")[0]
    assert open_address(address) == (f"the {protocol} file system", address)


def test_a_path_is_opened_unchanged(tmp_path):
    (tmp_path / "a::b").write_text("here")
    system, path = open_address(str(tmp_path / "a::b"))
    assert system.cat_file(path) == b"here"


def test_a_missing_package_is_named_without_the_password(monkeypatch):
    def fail(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(RespikeError, match="Install s3fs") as refused:
        open_address("s3://key:secret@bucket/folder")
    assert "secret" not in str(refused.value)


def test_a_refused_address_is_shown_without_its_password():
    with pytest.raises(RespikeError) as refused:
        check_address("lakefs://me:secret@host/x")
    assert "secret" not in str(refused.value)
    assert without_password("sftp://me:secret@host/x") == "sftp://host/x"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_PAUSE_SECONDS", 0)


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * 5000)
    return path


@pytest.fixture(params=["memory", "faulty", "file"])
def folder(request, tmp_path):
    """A folder that does not exist yet. The protocol of the class behind file:// is a tuple, as of sftp and webhdfs."""
    addresses = {
        "memory": f"memory://{tmp_path.name}/set",
        "faulty": make_store(tmp_path / "store"),
        "file": f"file://{tmp_path}/new/set",
    }
    return RemoteFolder(addresses[request.param])


def test_what_is_written_reads_back(folder, large, tmp_path):
    folder.write("a/small.json", "{}")
    folder.upload(large, "large.bin")
    assert folder.read("a/small.json") == b"{}"
    assert folder.file_sizes() == {"large.bin": 1_280_000}
    assert folder.read_all("a") == {"small.json": b"{}"}
    copy = tmp_path / "copy.bin"
    sha256 = folder.download("large.bin", copy)
    assert copy.read_bytes() == large.read_bytes()
    assert sha256 == hashlib.sha256(large.read_bytes()).hexdigest()


@pytest.mark.parametrize("action", ["write", "upload"])
def test_a_half_written_file_never_has_its_name(tmp_path, large, monkeypatch, action):
    folder = RemoteFolder(f"file://{tmp_path}/new/set")
    system = fsspec.get_filesystem_class("file")

    def break_off(path):
        Path(path).write_bytes(b"half")
        raise PermissionError("broken off")

    monkeypatch.setattr(system, "pipe_file", lambda self, path, value: break_off(path))
    monkeypatch.setattr(system, "put_file", lambda self, local, path: break_off(path))
    with pytest.raises(RespikeError, match="broken off"):
        folder.write("x.bin", b"content") if action == "write" else folder.upload(large, "x.bin")
    assert list((tmp_path / "new" / "set").iterdir()) == []


def test_a_file_is_replaced_and_removed(folder):
    folder.write("x", b"1")
    folder.write("x", b"22")
    assert folder.read("x") == b"22"
    folder.remove("x")
    folder.remove("x")
    assert folder.read("x") is None


def test_a_file_is_replaced_where_a_rename_would_not(tmp_path, monkeypatch):
    class KeepingFileSystem(LocalFileSystem):
        protocol = ("webhdfs", "webHDFS")

        def mv(self, old, new):
            if not Path(new).exists():
                super().mv(old, new)

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda _: (KeepingFileSystem(), f"{tmp_path}/set"))
    folder = RemoteFolder("webhdfs://host/set")
    folder.write("x", b"1")
    folder.write("x", b"22")
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == {"x": b"22"}


def test_a_missing_file_or_folder_reads_as_empty(folder):
    assert folder.file_sizes("absent") == {}
    assert folder.read("absent") is None
    assert folder.read_all("absent") == {}


@pytest.mark.parametrize("num_failures", [1, storage.MAX_ATTEMPTS])
def test_a_failed_read_is_not_taken_for_a_missing_file(folder, monkeypatch, num_failures):
    folder.write("a/mark.json", b"{}")
    system = type(fsspec.core.url_to_fs(folder.address)[0])
    real, calls = system.cat_file, []

    def cat_file(self, path, **options):
        calls.append(path)
        if len(calls) <= num_failures:
            raise TimeoutError("the store is slow today")
        return real(self, path, **options)

    monkeypatch.setattr(system, "cat_file", cat_file)
    if num_failures == 1:
        assert folder.read_all("a") == {"mark.json": b"{}"}
    else:
        with pytest.raises(RespikeError, match=r"cannot read a under .*slow today"):
            folder.read_all("a")


def test_it_pickles_to_workers(folder):
    folder.write("x", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("x") == b"1"


@pytest.mark.parametrize("fault", ["fail_every", "cut_every", "flip_every"])
def test_a_failed_write_is_retried(tmp_path, large, fault):
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
        ({"cut_every": 1}, "has 640,000 bytes in the store, 1,280,000 were sent"),
        ({"flip_every": 1}, "differs from what was sent"),
        ({"gone_after": 0}, "no route to host"),
    ],
)
def test_a_store_that_keeps_failing_is_one_line(tmp_path, large, faults, reason):
    folder = RemoteFolder(make_store(tmp_path / "store", **faults))
    with pytest.raises(RespikeError, match=r"cannot write large\.bin under faulty://") as error:
        folder.upload(large, "large.bin")
    assert reason in error.value.problem
    assert "\n" not in str(error.value)


def test_a_small_file_that_was_cut_is_reported(tmp_path):
    folder = RemoteFolder(make_store(tmp_path / "store", cut_every=1))
    with pytest.raises(RespikeError, match="differs from what was written"):
        folder.write("x.json", '{"a": 1}')


def test_a_refused_permission_is_not_retried(tmp_path, monkeypatch):
    folder = RemoteFolder(f"memory://{tmp_path.name}/set")
    tries = []

    def refuse(*_, **__):
        tries.append(1)
        raise PermissionError("not yours")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", refuse)
    with pytest.raises(RespikeError, match="not yours"):
        folder.read("x")
    assert len(tries) == 1


MD5 = hashlib.md5(bytes(range(256)) * 5000)


@pytest.mark.parametrize(
    ("facts", "is_known"),
    [
        ({"md5Hash": base64.b64encode(MD5.digest()).decode()}, True),
        ({"content_md5": bytearray(MD5.digest())}, True),
        ({"ETag": f'"{MD5.hexdigest()}"'}, True),
        ({"ETag": f'"{MD5.hexdigest()}-3"'}, False),
        ({}, False),
    ],
)
def test_an_upload_is_read_back_unless_its_md5_is_known(tmp_path, large, monkeypatch, facts, is_known):
    system = fsspec.get_filesystem_class("memory")
    info, real_open, modes = system.info, system.open, []

    def counted_open(self, path, mode="rb", **options):
        modes.append(mode)
        return real_open(self, path, mode, **options)

    monkeypatch.setattr(system, "info", lambda self, path, **options: info(self, path, **options) | facts)
    monkeypatch.setattr(system, "open", counted_open)
    RemoteFolder(f"memory://{tmp_path.name}/set").upload(large, "large.bin")
    assert ("rb" not in modes) is is_known
