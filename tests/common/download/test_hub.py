"""Downloads from the hub: only the hub gets the token, errors say what is wrong, parts are continued."""

import hashlib
from pathlib import Path

import pytest
from respike.common.download import fetch
from respike.common.errors import DownloadError

from tests.common.download.conftest import CONTENT, QUICK
from tests.common.download.hub import READ_TOKEN, TOKEN, Repository, running_hub, visit

ADDRESS = "hf://owner/repo/model.safetensors"


@pytest.fixture
def hub(monkeypatch):
    with running_hub() as hub:
        hub.repositories["owner/repo"] = Repository(
            revisions={"main": {"model.safetensors": CONTENT, "a/card.json": b"{}"}, "v1": {"old.bin": CONTENT[:100]}}
        )
        visit(hub, monkeypatch)
        yield hub


@pytest.fixture
def get(tmp_path):
    return lambda address=ADDRESS, **known: fetch(address, tmp_path / "out" / "file", settings=QUICK, **known)


def test_the_test_hub_works_with_the_hubs_own_client(hub, tmp_path):
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download("owner/repo", "model.safetensors", cache_dir=tmp_path))
    assert path.read_bytes() == CONTENT
    assert path.parent.name == hub.repositories["owner/repo"].sha("main")
    assert hub.hub.asked("HEAD")


@pytest.mark.parametrize(
    ("address", "content"),
    [
        (ADDRESS, CONTENT),
        ("hf://owner/repo/a/card.json", b"{}"),
        ("hf://owner/repo@v1/old.bin", CONTENT[:100]),
        ("hf://models/owner/repo@main/a/card.json", b"{}"),
        ("hf://datasets/owner/repo/list.txt", b"of a data set"),
    ],
)
def test_a_file_comes_from_the_hub_or_its_cdn(hub, get, address, content):
    hub.repositories["datasets/owner/repo"] = Repository(revisions={"main": {"list.txt": b"of a data set"}})
    assert get(address).read_bytes() == content
    is_large = address.endswith(("safetensors", "bin"))
    assert len(hub.cdn.requests) == is_large


def test_a_commit_is_a_revision(hub, get):
    sha = hub.repositories["owner/repo"].sha("v1")
    assert get(f"hf://owner/repo@{sha}/old.bin").read_bytes() == CONTENT[:100]


def test_the_token_goes_to_the_hub_and_never_to_the_cdn(hub, get, monkeypatch):
    hub.repositories["owner/repo"].is_private = True
    visit(hub, monkeypatch, READ_TOKEN)
    assert get().read_bytes() == CONTENT
    assert hub.hub.tokens("GET") == {f"Bearer {READ_TOKEN}"}
    assert hub.cdn.tokens("GET") == {None}


@pytest.mark.parametrize("token", [None, "hf_of_a_stranger"])
@pytest.mark.parametrize("kind", ["private", "missing"])
def test_a_private_or_missing_repository_says_how_to_log_in(hub, get, monkeypatch, token, kind):
    hub.repositories["owner/repo"].is_private = kind == "private"
    visit(hub, monkeypatch, token)
    with pytest.raises(DownloadError, match="no such repository, or it is private") as refused:
        get(ADDRESS if kind == "private" else ADDRESS.replace("repo", "none"))
    assert ("404" if token else "401") in refused.value.problem
    assert "hf auth login" in refused.value.hint
    assert "\n" not in str(refused.value)
    assert token is None or token not in str(refused.value)
    assert len(hub.hub.requests) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://owner/repo@v9/old.bin", "no such revision"),
        ("hf://owner/repo/none.bin", "no such file"),
        ("hf://owner/gated/x.bin", "is gated"),
    ],
)
def test_a_missing_or_gated_file_is_reported_as_such(hub, get, address, said):
    hub.repositories["owner/gated"] = Repository(is_gated=True)
    with pytest.raises(DownloadError, match=said):
        get(address)


@pytest.mark.parametrize("side", ["hub", "cdn"])
def test_a_rate_limit_is_waited_for(hub, get, side, monkeypatch):
    waited = []
    monkeypatch.setattr("respike.common.download.time.sleep", waited.append)
    getattr(hub, side).script = [(429, {"RateLimit": '"resolvers";r=0;t=1'}), (429, {"Retry-After": "1"})]
    assert get().read_bytes() == CONTENT
    assert waited == [1.0, 1.0]


def test_a_rate_limit_that_is_not_reached_is_ignored(hub, get, monkeypatch):
    waited = []
    monkeypatch.setattr("respike.common.download.time.sleep", waited.append)
    hub.hub.script = [(429, {"RateLimit": '"resolvers";r=7;t=900'})]
    assert get().read_bytes() == CONTENT
    assert waited == [QUICK.backoff_seconds]


def test_a_long_rate_limit_is_an_error(hub, get):
    hub.hub.script = [(429, {"RateLimit": '"resolvers";r=0;t=250'})]
    with pytest.raises(DownloadError, match="asks to wait 250 s"):
        get()


def test_a_broken_download_asks_the_hub_again_and_continues(hub, get):
    hub.cdn.cut = 20_000
    assert get(sha256=hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT
    assert [headers.get("Range") for _, _, headers in hub.cdn.requests] == [None, "bytes=20000-"]
    assert len(hub.hub.requests) == 2


def test_a_downloaded_file_needs_neither_hub_nor_token(hub, get, monkeypatch):
    visit(hub, monkeypatch, TOKEN)
    get()
    num_requests = len(hub.hub.requests)
    visit(hub, monkeypatch)
    hub.repositories.clear()
    assert get(offline=True).read_bytes() == CONTENT
    assert len(hub.hub.requests) == num_requests
