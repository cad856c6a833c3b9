"""Predictions: kept in a file to the bit, refused where the file is not what was written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from respike.common.errors import RespikeError
from respike.zoo.predictions import Predictions, Provenance, Row, collect, load_predictions, save_predictions
from respike.zoo.scoring import score_predictions
from safetensors import safe_open
from safetensors.torch import load_file, save_file

CLASSES = ("wave", "jump", "ünïcode")


def make_provenance(**changes: object) -> Provenance:
    facts = {
        "dataset": "bits",
        "split": 1,
        "subset": "test",
        "settings": {"stride": 4, "sampling": "dense"},
        "fingerprint": "f" * 64,
        "num_listed": 9,
        "num_skipped": 2,
        "checkpoint": "runs/a",
        "weights_sha256": "a" * 64,
        "network": "respike_tiny",
        "branches": "hybrid",
        "image_size": 32,
        "epoch": 3,
        "trained_on": "f" * 64,
        "clips_asked": None,
        "crops": 1,
        "device": "cpu",
    }
    return Provenance(**(facts | changes))


@pytest.fixture
def predictions() -> Predictions:
    generator = torch.Generator().manual_seed(0)
    rows = [
        Row(video=video, clip=clip, crop=crop, label=label)
        for label, video in enumerate(["b/\udcff.avi", "a/1.avi", "c/ 1.avi"])
        for clip in range(4)
        for crop in range(3)
    ]
    return collect([torch.randn(len(rows), 3, generator=generator).softmax(dim=1)], rows)


def test_views_are_put_in_order_each_once_whatever_order_they_came_in() -> None:
    rows = [Row(video=video, clip=clip, crop=0, label=0) for video, clip in (("b", 1), ("a", 2), ("b", 0), ("a", 2))]
    answers = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    told = collect([answers[:1], answers[1:]], rows)
    assert told.video_ids == ("a", "b")
    assert list(zip(told.videos.tolist(), told.clips.tolist(), strict=True)) == [(0, 2), (1, 0), (1, 1)]
    assert torch.equal(told.probabilities, answers[[1, 2, 0]])


def test_scores_from_a_file_are_the_very_same(tmp_path: Path, predictions: Predictions) -> None:
    provenance = make_provenance(overruled=("stride is 4 in the checkpoint and 2 in the data",))
    save_predictions(tmp_path / "kept.safetensors", predictions, CLASSES, provenance)
    read, classes, known = load_predictions(tmp_path / "kept.safetensors")
    assert (read.video_ids, classes, known) == (predictions.video_ids, CLASSES, provenance)
    first = score_predictions(predictions, provenance=provenance)
    second = score_predictions(read, provenance=known)
    assert first.to_json(CLASSES) == second.to_json(classes)
    assert (first.confusion == second.confusion).all()
    assert second.forced
    assert second.num_views == 36


def test_any_reader_of_safetensors_reads_them(tmp_path: Path, predictions: Predictions) -> None:
    save_predictions(tmp_path / "kept.safetensors", predictions, CLASSES)
    tensors = load_file(tmp_path / "kept.safetensors")
    assert torch.equal(tensors["probabilities"], predictions.probabilities)
    with safe_open(tmp_path / "kept.safetensors", framework="np") as file:
        facts = json.loads(file.metadata()["respike"])
    assert facts["video_ids"][tensors["videos"][0]] == predictions.video_ids[0]


def _rewrite(path: Path, change: dict[str, torch.Tensor | None], facts: dict[str, object] | None = None) -> None:
    """Change tensors and facts, and seal the file as if they had always been so."""
    from respike.zoo.predictions import _digest

    with safe_open(path, framework="pt") as file:
        known = json.loads(file.metadata()["respike"]) | (facts or {})
    tensors = {name: tensor for name, tensor in (load_file(path) | change).items() if tensor is not None}
    text = json.dumps(known)
    save_file(tensors, path, metadata={"respike": text, "sha256": _digest(text, tensors)})


@pytest.mark.parametrize(
    ("change", "facts", "reason"),
    [
        ({"labels": None}, {}, "lacks labels"),
        ({"labels": torch.full((36,), 3)}, {}, "labels are not within 0 to 2"),
        ({"labels": torch.zeros(35, dtype=torch.int64)}, {}, "not of one size"),
        ({"videos": torch.full((36,), -1)}, {}, "videos are not within 0 to 2"),
        ({"crops": torch.zeros(36)}, {}, "crops is torch.float32"),
        ({"probabilities": torch.ones(36, 3)}, {}, "do not sum to 1"),
        ({"probabilities": torch.full((36, 3), float("nan"))}, {}, "do not sum to 1"),
        ({}, {"classes": ["one"]}, "not of one size"),
        ({}, {"format": 9}, "format 9"),
        ({}, {"provenance": {"dataset": "bits"}}, "provenance"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    tmp_path: Path, predictions: Predictions, change: dict, facts: dict, reason: str
) -> None:
    path = tmp_path / "kept.safetensors"
    save_predictions(path, predictions, CLASSES, make_provenance())
    _rewrite(path, change, facts)
    with pytest.raises(RespikeError, match=reason):
        load_predictions(path)


def test_every_cut_and_changed_byte_is_found(tmp_path: Path, predictions: Predictions) -> None:
    path = tmp_path / "kept.safetensors"
    save_predictions(path, predictions, CLASSES, make_provenance())
    whole = path.read_bytes()
    for place in range(0, len(whole), 61):
        damaged = [whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]]
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(RespikeError):
                load_predictions(path)


def test_a_file_that_is_not_there_or_no_safetensors_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match="no predictions"):
        load_predictions(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RespikeError, match="holds no predictions"):
        load_predictions(tmp_path / "text")


def test_provenance_goes_through_json_whole() -> None:
    provenance = make_provenance(overruled=("one", "two"))
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json()))) == provenance
    assert replace(provenance, epoch=4) != provenance
