"""Publication from Python: a folder for others, its scores, and refusals."""

import json
from pathlib import Path

import pytest
from respike import evaluate, load_model, publish
from respike.common.errors import RespikeError
from respike.workflows.publication import import_checkpoint


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_is_published_with_its_scores(small_run: Path, small_shards: Path) -> None:
    scored = evaluate(small_run, small_shards, views="1")
    Path("scores.json").write_text(json.dumps(scored.scores.to_json(scored.classes)))
    publication = publish(small_run, name="respike_tiny.mine", licence="MIT", scores=Path("scores.json"))
    assert publication.out == Path("published/respike_tiny.mine")
    assert publication.card.scores[0].command == "respike score respike_tiny.mine"
    assert load_model(publication.out)[1].weights_sha256 == load_model(small_run)[1].weights_sha256
    assert publication.to_json()["to"] is None


def test_an_address_is_checked_before_anything_is_written(small_run: Path) -> None:
    with pytest.raises(RespikeError, match="github"):
        publish(small_run, name="respike_tiny.mine", licence="MIT", address="github://owner/repo")
    assert not Path("published").exists()


def test_scores_that_are_not_json_are_refused(small_run: Path) -> None:
    Path("scores.json").write_text("top1: 0.5")
    with pytest.raises(RespikeError, match="cannot be read as JSON"):
        publish(small_run, name="respike_tiny.mine", licence="MIT", scores=Path("scores.json"))


def test_an_import_replaces_no_file(small_shards: Path) -> None:
    Path("ours.safetensors").touch()
    with pytest.raises(RespikeError, match="exists already"):
        import_checkpoint("theirs.pth", small_shards, "ours.safetensors")
