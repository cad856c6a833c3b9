"""Upload to the hub, by the hub's own library: the whole folder in one commit, refusals on one line, tokens kept."""

import os
import subprocess
import sys

import pytest
from respike.common.errors import RespikeError, SettingError
from respike.zoo.publishing import upload
from respike.zoo.weights import resolve_weights

from tests.common.download.hub import READ_TOKEN, TOKEN, Repository, running_hub, visit
from tests.zoo.published import FILES, hash_of, save_small

ADDRESS = "hf://owner/repo"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "cache"))
    # the hub's library waits before it tries again
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with running_hub() as hub:
        visit(hub, monkeypatch, TOKEN)
        yield hub


def test_the_folder_becomes_a_repository_in_one_commit_and_comes_back(hub, published, monkeypatch):
    upload(published, ADDRESS)
    repository = hub.repositories["owner/repo"]
    assert repository.commits == [("main", "Publish respike_tiny.test", sorted(FILES))]
    assert repository.revisions["main"] == {name: (published / name).read_bytes() for name in FILES}
    assert hub.hub.tokens("POST") == {f"Bearer {TOKEN}"}
    assert hub.cdn.tokens("PUT") == {None}
    visit(hub, monkeypatch)
    assert hash_of(resolve_weights(ADDRESS)) == hash_of(published / "model.safetensors")


def test_an_address_in_large_letters_is_the_same_repository(hub, published):
    upload(published, ADDRESS.replace("hf", "HF"))
    assert hash_of(resolve_weights(ADDRESS.replace("hf", "HF"))) == hash_of(published / "model.safetensors")


def test_a_repository_that_is_there_gets_another_commit_and_large_files_that_are_there_stay(hub, published):
    upload(published, ADDRESS)
    upload(published, ADDRESS)
    assert len(hub.cdn.asked("PUT")) == 1
    assert len(hub.repositories["owner/repo"].commits) == 2


def test_a_revision_becomes_a_branch_of_that_name(hub, published):
    upload(published, f"{ADDRESS}@draft")
    repository = hub.repositories["owner/repo"]
    assert set(repository.revisions["draft"]) == FILES
    assert repository.revisions["main"] == {}
    assert resolve_weights(f"{ADDRESS}@draft").is_file()


@pytest.mark.parametrize(
    ("token", "address", "said"),
    [
        (None, ADDRESS, "401"),
        ("hf_of_a_stranger", ADDRESS, "401"),
        (READ_TOKEN, ADDRESS, "403"),
        (None, ADDRESS.upper(), "401"),
        (TOKEN, "hf://somebody/repo", "the rights to create a model under the namespace"),
    ],
)
def test_who_may_not_write_there_is_told_on_one_line_with_the_way_in(hub, published, monkeypatch, token, address, said):
    visit(hub, monkeypatch, token)
    with pytest.raises(RespikeError, match=f"cannot publish respike_tiny.test at {address}: .*{said}") as refused:
        upload(published, address)
    assert "\n" not in str(refused.value)
    assert "hf auth login" in refused.value.hint
    assert str(published) in refused.value.hint
    assert token is None or token not in str(refused.value)
    assert hub.repositories == {}


def test_a_rate_limit_is_waited_for_or_told(hub, published):
    hub.repositories["owner/repo"] = Repository()
    limit = (429, {"RateLimit": '"api";r=0;t=9'})
    hub.hub.script = [limit]
    with pytest.raises(RespikeError, match=r"429 .*Too Many Requests.*wait that long"):
        upload(published, ADDRESS)
    upload(published, ADDRESS)
    assert len(hub.repositories["owner/repo"].commits) == 1


def test_a_large_file_that_the_store_refuses_is_never_committed(hub, published):
    hub.cdn.script = [(403, {})]
    with pytest.raises(RespikeError, match=r"cannot publish .*403"):
        upload(published, ADDRESS)
    assert hub.repositories["owner/repo"].commits == []
    upload(published, ADDRESS)
    assert len(hub.repositories["owner/repo"].commits) == 1


@pytest.mark.parametrize("address", ["hf://owner", "hf://datasets/owner/repo", "hf://owner/repo/folder"])
def test_an_address_that_names_no_repository_is_refused(hub, published, address):
    with pytest.raises(SettingError, match="names no repository of the hub"):
        upload(published, address)
    assert hub.hub.requests == []


def test_the_command_line_publishes_and_another_user_downloads(tmp_path):
    """In processes of their own, sent to the imitation by HF_ENDPOINT alone."""
    save_small(tmp_path / "run")
    with running_hub() as hub:

        def run(user: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
            home = tmp_path / user
            home.mkdir(exist_ok=True)
            own = {"HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub.hub.url}
            dropped = ("HF_TOKEN", "RESPIKE_CACHE", "XDG_CACHE_HOME", "RESPIKE_OFFLINE", "RESPIKE_ZOO_MIRROR")
            environment = {name: value for name, value in os.environ.items() if name not in dropped}
            return subprocess.run(
                [sys.executable, "-m", "respike", "zoo", *arguments],
                env=environment | own | {"HF_HUB_DISABLE_XET": "1"} | variables,
                cwd=home,
                capture_output=True,
                text=True,
            )

        named = ["--name", "respike_tiny.mine", "--licence", "MIT", "--to", ADDRESS]
        wrote = run("author", "publish", str(tmp_path / "run"), *named, HF_TOKEN=TOKEN)
        assert wrote.returncode == 0, wrote.stderr
        assert f"next: respike zoo show {ADDRESS}" in wrote.stdout
        got = run("reader", "download", ADDRESS)
        assert got.returncode == 0, got.stderr
        assert str(tmp_path / "reader" / ".cache" / "respike") in got.stdout
        again = run("reader", "download", ADDRESS, "--offline")
        assert again.stdout == got.stdout
        hub.repositories["owner/repo"].is_private = True
        refused = run("stranger", "download", ADDRESS)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no such repository, or it is private" in refused.stderr
        assert "Traceback" not in refused.stderr
