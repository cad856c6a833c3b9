"""Addresses promise: stores that only move bytes are opened; what could run something or lead on is one line."""

import re
from pathlib import Path

import pytest
import respike
from respike.common.download import fetch
from respike.common.errors import DownloadError, RespikeError, SettingError
from respike.common.storage import check_address, is_address, open_address, without_password
from respike.data.acquire import Source

ODD = [
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


@pytest.mark.parametrize("address", ODD)
def test_an_odd_protocol_is_one_line_that_names_the_allowed(address, tmp_path):
    told = r"is no address that respike opens; allowed are a path and https://, http://, hf://, s3://"
    for refuses, error in (
        (lambda: open_address(address), RespikeError),
        (lambda: fetch(address, tmp_path / "file"), DownloadError),
        (lambda: Source(name="a.zip", addresses=("https://here/a.zip", address), to="x"), SettingError),
    ):
        with pytest.raises(error, match=told) as refused:
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
def test_stores_and_paths_are_let_through(address):
    check_address(address)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *(("s3://x", True), ("HF://owner/repo", True), ("pipe:x", True)),
        *(("c:/x", False), ("C:\\x", False), ("C://x", False)),
        *(("./pipe:x", False), ("a b:x", False), ("x", False), ("", False)),
    ],
)
def test_what_only_looks_like_an_address_is_one(text, is_one):
    assert is_address(text) == is_one


def test_a_protocol_in_large_letters_opens_the_same(tmp_path):
    (tmp_path / "Name").write_text("here")
    for address in (f"FILE://{tmp_path}/Name", f"file://{tmp_path}/Name"):
        system, path = open_address(address)
        assert system.cat_file(path) == b"here"
        assert fetch(address, tmp_path / address.partition(":")[0]).read_text() == "here"


def test_nothing_else_decides_what_an_address_is():
    rest = [path for path in Path(respike.__file__).parent.rglob("*.py") if path.name != "addresses.py"]
    # engines do not know addresses, and those of Ray are none of ours
    deciding = re.compile(r'"://" (not )?in|startswith\("\w+:/|\("http", "https"\)|://\.')
    found = {path.name for path in rest if deciding.search(path.read_text())}
    assert found == {"ray_cluster.py"}


def test_a_users_own_protocol_is_opened_where_it_is_named(monkeypatch):
    with pytest.raises(RespikeError, match="RESPIKE_PROTOCOLS"):
        check_address("lakefs://x")
    monkeypatch.setenv("RESPIKE_PROTOCOLS", "root lakefs")
    check_address("lakefs://x")
    with pytest.raises(RespikeError, match=r"allowed are .*root://, lakefs://"):
        check_address("git://x")
    with pytest.raises(RespikeError, match="no address that respike opens"):
        check_address("simplecache::lakefs://x")


@pytest.mark.parametrize("address", ["http://[::1]:80/x", "https://host/a::s3://b"])
def test_colons_in_a_web_address_lead_nowhere_else(address, monkeypatch):
    import fsspec

    monkeypatch.setattr(fsspec, "filesystem", lambda protocol: f"the {protocol} file system")
    protocol = address.partition(":")[0]
    assert open_address(address) == (f"the {protocol} file system", address)


def test_a_path_is_opened_as_it_stands(tmp_path):
    (tmp_path / "a::b").write_text("here")
    system, path = open_address(str(tmp_path / "a::b"))
    assert system.cat_file(path) == b"here"


def test_an_address_whose_package_is_missing_names_it(monkeypatch):
    import fsspec

    def lacking(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(RespikeError, match="Install s3fs") as refused:
        open_address("s3://key:secret@bucket/folder")
    assert "secret" not in str(refused.value)


def test_a_password_is_not_told_when_an_address_is_refused():
    with pytest.raises(RespikeError) as refused:
        check_address("lakefs://me:secret@host/x")
    assert "secret" not in str(refused.value)
    assert without_password("sftp://me:secret@host/x") == "sftp://host/x"
