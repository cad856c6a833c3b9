"""Publishing: a folder complete in itself, on this disk, in a store, over HTTP and on the hub."""

import json
import os
import subprocess
import sys

import fsspec
import pytest
import yaml
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.publishing import publish, upload
from respike.zoo.weights import read_card, resolve_weights

from tests.common.download.hub import READ_TOKEN, TOKEN, Repository, running_hub, visit
from tests.common.download.server import running
from tests.zoo.published import FILES, SCORES, files_at, hash_of, publish_as_earlier, publish_small, save_small

ADDRESS = "hf://owner/repo"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "cache"))


def test_a_folder_holds_weights_card_config_scores_and_readme(tmp_path):
    card = publish_small(tmp_path)
    out = tmp_path / "published"
    assert {path.name for path in out.iterdir()} == FILES
    assert read_card(out / "card.json") == card
    assert {file.name: file.sha256 for file in card.files} == {"model.safetensors": hash_of(out / "model.safetensors")}
    assert card.num_parameters == sum(parameter.numel() for parameter in load_checkpoint(out)[0].parameters())
    assert json.loads((out / "config.json").read_text())["model"] == card.model
    scores = {(score.metric, score.of, score.subset): score for score in card.scores}
    assert scores["top1", "videos", "test"].value == 0.8
    assert scores["top1", "clips", "test"].command == "respike score runs/x"
    assert scores["top1", "clips", "test"].count == 40
    assert scores["top1", "clips", "held-out part of train"].value == 0.5
    assert json.loads((out / "scores.json").read_text()) == json.loads(card.to_text())["scores"]


def test_the_readme_is_a_model_card_of_the_hub(tmp_path):
    publish_small(tmp_path, sources=("hf://owner/repo",), notes="A note.")
    _, front, body = (tmp_path / "published" / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["license"], facts["library_name"]) == ("apache-2.0", "respike")
    values = [metric["value"] for metric in facts["model-index"][0]["results"][0]["metrics"]]
    assert 0.75 in values
    assert 'pretrained="hf://owner/repo"' in body
    assert "A note." in body
    assert "respike train --epochs 2" in body


def test_without_a_command_the_settings_tell_one(tmp_path):
    card = publish_small(tmp_path, command="")
    assert card.command.startswith("respike train --model respike_tiny --branches snn --set epochs=2 ")
    assert "--set learning_rate=0.002" in card.command
    assert "batch_size" not in card.command or "batch_size=32" in card.command


def test_a_round_trip_through_a_store(tmp_path):
    card = publish_small(tmp_path)
    upload(tmp_path / "published", "memory://zoo/small")
    assert {path.rpartition("/")[2] for path in fsspec.filesystem("memory").ls("/zoo/small", detail=False)} == FILES
    path = resolve_weights("memory://zoo/small")
    assert hash_of(path) == card.files[0].sha256
    # what was fetched can be published again, and is the same
    again = publish(path, tmp_path / "again", name=card.name, licence=card.licence, command=card.command)
    assert again.files == card.files


@pytest.mark.parametrize(("image_size", "words"), [(64, ""), (224, "--set image_size=224")])
def test_the_command_names_an_image_size_that_is_not_the_default(tmp_path, image_size, words):
    path = save_small(tmp_path, training={"image_size": image_size})
    card = publish(path, tmp_path / "out", name="respike_tiny.test", licence="MIT")
    assert card.command == f"respike train --model respike_tiny --branches snn {words}".strip()


def test_a_checkpoint_of_an_earlier_version_is_published_as_one_file(tmp_path):
    earlier = publish_as_earlier(tmp_path / "earlier")
    card = publish(earlier, tmp_path / "out", name="respike_tiny.test", licence="MIT")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert [file.name for file in card.files] == ["model.safetensors"]
    publish(tmp_path / "out", earlier, name="respike_tiny.test", licence="MIT")
    assert {path.name for path in earlier.iterdir()} == FILES


def test_a_folder_of_an_earlier_version_is_uploaded_with_its_spec(tmp_path):
    upload(publish_as_earlier(tmp_path), "memory://zoo/earlier")
    stored = fsspec.filesystem("memory").ls("/zoo/earlier", detail=False)
    assert {path.rpartition("/")[2] for path in stored} == FILES | {"model.json"}


def test_a_round_trip_over_http(tmp_path):
    card = publish_small(tmp_path)
    with running() as server:
        server.files |= files_at(tmp_path / "published", "/small")
        assert hash_of(resolve_weights(server.url("/small"))) == card.files[0].sha256


def test_an_address_that_cannot_be_written_is_one_line(tmp_path):
    publish_small(tmp_path)
    with pytest.raises(RespikeError, match=r"nowhere.*is no address that respike opens"):
        upload(tmp_path / "published", "nowhere://x")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"name": "respike_r18.test"}, SettingError, r"write respike_tiny\.TAG"),
        ({"name": "Respike"}, SettingError, "not arch.tag"),
        ({"scores": SCORES | {"forced": True}}, MismatchError, "forced"),
        ({"scores": SCORES | {"fingerprint": "0" * 64}}, MismatchError, "scores are of other data"),
        ({"scores": {"forced": False}}, RespikeError, "the scores lack 'fingerprint'"),
        ({"score_command": ""}, SettingError, "without the command that measured them"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        publish_small(tmp_path, **change)
    assert not (tmp_path / "published").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "thesis.txt").write_text("mine")
    with pytest.raises(RespikeError, match="is not empty"):
        publish_small(tmp_path)
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["thesis.txt"]


def test_a_publication_is_written_over_by_one_of_its_name_alone(tmp_path):
    publish_small(tmp_path)
    publish_small(tmp_path, notes="second")
    assert read_card(tmp_path / "published" / "card.json").notes == "second"
    with pytest.raises(RespikeError, match=r"holds respike_tiny\.test"):
        publish_small(tmp_path, name="respike_tiny.other")


def test_a_damaged_checkpoint_is_never_published(tmp_path):
    path = save_small(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RespikeError, match="damaged"):
        publish(path, tmp_path / "out", name="respike_tiny.test", licence="MIT")
    assert not (tmp_path / "out").exists()


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
