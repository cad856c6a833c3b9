"""Publish: a folder that stands for itself, on this disk, in a store, over HTTP and on the hub."""

import json

import fsspec
import pytest
import yaml
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.publishing import publish, upload
from respike.zoo.weights import read_card, resolve_weights

from tests.common.download.server import running
from tests.zoo.published import FILES, SCORES, files_at, hash_of, publish_small, save_small


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "cache"))


def test_a_folder_holds_weights_card_config_scores_and_readme(tmp_path):
    card = publish_small(tmp_path)
    out = tmp_path / "published"
    assert {path.name for path in out.iterdir()} == FILES
    assert read_card(out / "card.json") == card
    assert {file.name: file.sha256 for file in card.files} == {
        name: hash_of(out / name) for name in ("model.safetensors", "model.json")
    }
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
