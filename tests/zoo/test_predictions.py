"""Predictions: saved to the bit, refused if the file is damaged, and averaged over a video."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from respike.common.config import from_plain, to_plain
from respike.common.errors import RespikeError
from respike.zoo.predictions import (
    Predictions,
    Provenance,
    Row,
    VideoVote,
    best_guesses,
    collect,
    load_predictions,
    save_predictions,
)
from respike.zoo.scoring import score_predictions
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.zoo.batches import make_batch

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


def test_views_are_sorted_and_each_counts_once() -> None:
    rows = [Row(video=video, clip=clip, crop=0, label=0) for video, clip in (("b", 1), ("a", 2), ("b", 0), ("a", 2))]
    answers = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    collected = collect([answers[:1], answers[1:]], rows)
    assert collected.video_ids == ("a", "b")
    assert list(zip(collected.videos.tolist(), collected.clips.tolist(), strict=True)) == [(0, 2), (1, 0), (1, 1)]
    assert torch.equal(collected.probabilities, answers[[1, 2, 0]])


def test_scores_from_a_file_are_the_same(tmp_path: Path, predictions: Predictions) -> None:
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


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """The checksum that a file of predictions holds: of its facts and of its tensors by name."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _rewrite(path: Path, change: dict[str, Tensor | None], facts: dict[str, object]) -> None:
    """Change tensors and facts, with a checksum that fits."""
    with safe_open(path, framework="pt") as file:
        known = json.loads(file.metadata()["respike"]) | facts
    tensors = {name: tensor for name, tensor in (load_file(path) | change).items() if tensor is not None}
    text = json.dumps(known)
    save_file(tensors, path, metadata={"respike": text, "sha256": _digest(text, tensors)})


@pytest.mark.parametrize(
    ("change", "facts", "reason"),
    [
        ({"labels": None}, {}, "lacks labels"),
        ({"labels": torch.full((36,), 3)}, {}, "labels are not within 0 to 2"),
        ({"labels": torch.zeros(35, dtype=torch.int64)}, {}, "do not have the same size"),
        ({"videos": torch.full((36,), -1)}, {}, "videos are not within 0 to 2"),
        ({"crops": torch.zeros(36)}, {}, "crops is torch.float32"),
        ({"probabilities": torch.ones(36, 3)}, {}, "do not sum to 1"),
        ({"probabilities": torch.full((36, 3), float("nan"))}, {}, "do not sum to 1"),
        ({}, {"classes": ["one"]}, "do not have the same size"),
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


def test_a_cut_or_changed_byte_is_found_anywhere(tmp_path: Path, predictions: Predictions) -> None:
    path = tmp_path / "kept.safetensors"
    save_predictions(path, predictions, CLASSES, make_provenance())
    whole = path.read_bytes()
    for place in range(0, len(whole), 151):
        damaged = [whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]]
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(RespikeError):
                load_predictions(path)


def test_a_missing_file_or_one_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match="no predictions"):
        load_predictions(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RespikeError, match="holds no predictions"):
        load_predictions(tmp_path / "text")


def test_provenance_goes_through_json_whole() -> None:
    provenance = make_provenance(overruled=("one", "two"))
    assert from_plain(Provenance, json.loads(json.dumps(to_plain(provenance)))) == provenance
    assert replace(provenance, epoch=4) != provenance


class Answers(nn.Module):
    """A network that returns given logits, batch after batch."""

    def __init__(self, *answers):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.answers = list(answers)

    def forward(self, keys, residuals, color):
        return torch.tensor(self.answers.pop(0))


def test_a_video_is_the_mean_of_its_clips_probabilities():
    vote = VideoVote(Answers([[0.0, 1.0]], [[2.0, 0.0], [0.0, 0.0]]))
    first = vote.add(make_batch([0]))
    rest = vote.add(make_batch([0, 1]))
    assert vote.num_clips == 3
    torch.testing.assert_close(vote.probabilities(), torch.cat([first, rest]).mean(dim=0))


def test_an_output_that_is_not_finite_names_the_video():
    with pytest.raises(RespikeError, match="video-0"):
        VideoVote(Answers([[float("nan"), 0.0]])).add(make_batch([0]))


def test_a_video_without_a_clip_has_no_probabilities():
    with pytest.raises(RespikeError, match="no clip"):
        VideoVote(Answers()).probabilities()


def test_guesses_are_sorted_and_at_most_as_many_as_classes():
    guesses = best_guesses(torch.tensor([0.2, 0.5, 0.3]), ("a", "b", "c"), 9)
    assert [guess.class_name for guess in guesses] == ["b", "c", "a"]
    assert guesses[0].probability == 0.5
