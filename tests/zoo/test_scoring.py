"""Scoring: what counts, what is refused, and the mean over splits or seeds."""

import dataclasses
import math

import pytest
import torch
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.types import Batch
from respike.zoo.predictions import Row, collect, merge_crops
from respike.zoo.scoring import Scores, find_differences, predict, score, score_predictions, summarise_scores
from torch import Tensor, nn

from tests.zoo.batches import Batches, make_batch
from tests.zoo.test_predictions import make_provenance


class Oracle(nn.Module):
    """Returns logits from a list, row by row, for any input."""

    def __init__(self, answers: list[list[float]]) -> None:
        super().__init__()
        self.answers, self.given = torch.tensor(answers), 0

    def forward(self, keys: Tensor, residuals: Tensor, color: str) -> Tensor:
        assert not self.training
        rows = self.answers[self.given : self.given + len(keys)]
        self.given += len(keys)
        return rows


def _batch(labels: list[int], videos: list[str], clips: list[int], mask: list[bool] | None = None) -> Batch:
    batch = make_batch(labels, videos=videos, mask=mask)
    batch.clip_indices[:] = torch.tensor(clips)
    return batch


YES, NO, UNSURE = [4.0, 0.0], [0.0, 4.0], [0.0, 1.0]


def test_clips_and_videos_are_counted_apart() -> None:
    source = Batches([_batch([0, 0], ["a", "a"], [0, 1]), _batch([0, 1], ["a", "b"], [2, 0])])
    scores = score(Oracle([YES, UNSURE, UNSURE, NO]), source, num_classes=2)
    assert (scores.num_clips, scores.num_videos) == (4, 2)
    assert scores.clip.top1 == pytest.approx(0.5)
    # the mean probability of the right class is above a half, although most clips are wrong
    assert scores.video.top1 == pytest.approx(1.0)
    assert scores.confusion.tolist() == [[1, 2], [0, 1]]


def test_masked_rows_do_not_count() -> None:
    source = Batches([_batch([0, 0, 0], ["a", "b", "c"], [0, 0, 0], [True, True, False])])
    scores = score(Oracle([YES, YES, NO]), source, num_classes=2)
    assert (scores.num_clips, scores.num_videos, scores.clip.top1) == (2, 2, 1)


def test_a_clip_that_comes_twice_counts_once() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0]), _batch([0], ["a"], [0])])
    scores = score(Oracle([NO, NO, YES]), source, num_classes=2)
    assert scores.num_clips == 2
    assert scores.clip.top1 == pytest.approx(0.5)


class Counted(Batches):
    """A source that knows how many views a pass has."""

    num_views = 3
    is_training = False


def test_a_pass_that_lacks_views_is_refused() -> None:
    whole = [_batch([0, 1], ["a", "b"], [0, 0]), _batch([0, 0], ["c", "a"], [0, 0], [True, False])]
    assert score(Oracle([YES, NO, YES, NO]), Counted(whole), num_classes=2).num_clips == 3
    # the masked row does not count
    with pytest.raises(RespikeError, match="the loader has 3 views, it returned 1"):
        score(Oracle([YES, NO]), Counted(whole[1:]), num_classes=2)


def test_a_loader_for_training_is_refused() -> None:
    source = Counted([_batch([0, 1, 0], ["a", "b", "c"], [0, 0, 0])])
    source.is_training = True
    for call in (score, predict):
        with pytest.raises(SettingError, match="the loader is for training") as caught:
            call(Oracle([YES, NO, YES]), source, num_classes=2)
        assert "training=False" in caught.value.hint


def test_scoring_starts_at_the_first_batch() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    score(Oracle([YES, NO]), source, num_classes=2)
    assert source.epochs == [0]


def test_loss_is_the_mean_cross_entropy() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    expected = nn.functional.cross_entropy(torch.tensor([YES, UNSURE]), torch.tensor([0, 1]))
    assert score(Oracle([YES, UNSURE]), source, num_classes=2).loss == pytest.approx(float(expected), rel=1e-5)


def test_the_json_has_the_documented_form() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    scores = score(Oracle([YES, YES]), source, num_classes=2, fingerprint="abc", forced=True)
    half = {"top1": 0.5, "top5": 1.0, "mean_class_accuracy": 0.5}
    facts = scores.to_json(["first", "second"])
    assert list(facts)[:6] == ["clip", "video", "num_clips", "num_videos", "fingerprint", "forced"]
    confidence = math.exp(4) / (math.exp(4) + 1)
    assert facts == {
        "clip": half,
        "video": half,
        "num_clips": 2,
        "num_videos": 2,
        "fingerprint": "abc",
        "forced": True,
        "num_views": 2,
        "loss": pytest.approx(2 - math.log(confidence)),
        # the same confidence in all rows, half of them correct
        "calibration": {"clip": pytest.approx(confidence - 0.5), "video": pytest.approx(confidence - 0.5)},
        "per_class": [
            {"class": "first", "num_clips": 1, "clip_top1": 1, "num_videos": 1, "video_top1": 1},
            {"class": "second", "num_clips": 1, "clip_top1": 0, "num_videos": 1, "video_top1": 0},
        ],
    }


def test_a_class_without_clips_has_no_share() -> None:
    source = Batches([_batch([0, 0], ["a", "b"], [0, 0])])
    (_, empty) = score(Oracle([YES, YES]), source, num_classes=2).per_class
    assert (empty.num_clips, empty.clip_top1, empty.num_videos, empty.video_top1) == (0, None, 0, None)


def test_crops_are_averaged_for_a_clip_and_for_a_video() -> None:
    # two clips of three crops: the first is wrong in two crops of three, the second in none
    batch = _batch([0, 0], ["a", "a"], [0, 1])
    source = Batches([dataclasses.replace(batch, crop=crop) for crop in range(3)])
    answers = [YES, YES, NO, YES, NO, YES]
    predictions = predict(Oracle(answers), source, num_classes=2)
    scores = score_predictions(predictions)
    assert (scores.num_views, scores.num_clips, scores.num_videos) == (6, 2, 1)
    assert scores.clip.top1 == pytest.approx(0.5)
    assert scores.video.top1 == 1
    (first, second) = merge_crops(predictions).probabilities
    rows = torch.tensor(answers).softmax(dim=1)
    assert torch.allclose(first, rows[[0, 2, 4]].mean(dim=0))
    assert torch.allclose(second, rows[1])


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_mode_is_restored(training: bool) -> None:
    model = Oracle([YES]).train(training)
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2)
    assert model.training is training


def test_each_layer_returns_to_its_own_mode() -> None:
    model = nn.Sequential(Oracle([YES]), nn.Identity())
    model.forward = model[0].forward  # type: ignore[method-assign]
    model.train()
    model[1].eval()
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2)
    assert [module.training for module in (model, model[0], model[1])] == [True, True, False]


class Elsewhere(Oracle):
    """A network on a device without memory whose output is on the CPU."""

    def __init__(self) -> None:
        super().__init__([YES])
        self.weight = nn.Parameter(torch.empty(1, device="meta"))


def test_a_network_runs_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    monkeypatch.setattr(Batch, "to", lambda batch, device, **_: devices.append(device) or batch)
    model = Elsewhere()
    # its weight has no value that could be moved
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2)
    assert (model.weight.device.type, devices) == ("meta", [torch.device("meta")])


def test_a_network_moves_to_a_device_that_is_given() -> None:
    model = Oracle([YES])
    model.weight = nn.Parameter(torch.zeros(1))
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2, device="meta")
    assert model.weight.device.type == "meta"


def test_an_empty_source_is_named() -> None:
    with pytest.raises(RespikeError, match="no clip to score"):
        score(Oracle([YES]), Batches([]), num_classes=2)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(SettingError, match="at least 2"):
        score(Oracle([YES]), Batches([]), num_classes=1)


def test_logits_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(MismatchError, match="2 classes, the data has 3"):
        score(Oracle([YES]), Batches([_batch([0], ["a"], [0])]), num_classes=3)


def test_a_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(MismatchError, match="from 2 to 2"):
        score(Oracle([YES]), Batches([_batch([2], ["a"], [0])]), num_classes=2)


def test_an_output_that_is_not_finite_names_its_clip() -> None:
    with pytest.raises(RespikeError, match="clip 3 of b"):
        score(Oracle([YES, [float("nan"), 0.0]]), Batches([_batch([0, 0], ["a", "b"], [0, 3])]), num_classes=2)


def _scores(num_right: int, **changes: object) -> Scores:
    """Scores of ten videos with one clip each; so many are right."""
    rows = [Row(video=f"v{number}", clip=0, crop=0, label=0) for number in range(10)]
    answers = torch.tensor([[0.8, 0.2] if number < num_right else [0.2, 0.8] for number in range(10)])
    return score_predictions(collect([answers], rows), provenance=make_provenance(**changes))


def test_mean_and_sample_deviation_of_three_splits() -> None:
    shares = [(5, 1), (6, 2), (9, 3)]
    together = summarise_scores(
        [_scores(right, split=split, weights_sha256=str(split), fingerprint=str(split)) for right, split in shares]
    )
    assert together.mean["video"]["top1"] == pytest.approx(20 / 30)
    # the root of ((1/6)² + (1/15)² + (7/30)²) / 2
    assert together.deviation["clip"]["top1"] == pytest.approx(0.208167, abs=1e-6)
    assert together.mean["clip"]["top5"] == 1
    assert [run["provenance"]["split"] for run in together.to_json()["runs"]] == [1, 2, 3]


def test_a_mean_over_two_data_sets_is_refused() -> None:
    with pytest.raises(MismatchError, match="bits, bytes"):
        summarise_scores([_scores(5), _scores(5, dataset="bytes")])


def test_one_checkpoint_twice_is_refused() -> None:
    with pytest.raises(MismatchError, match="runs/b and runs/a are the same weights"):
        summarise_scores([_scores(5), _scores(5, checkpoint="runs/b")])


def test_differences_are_named_except_split_and_seed() -> None:
    first = make_provenance(settings={"stride": 4, "seed": 0})
    alike = make_provenance(split=2, settings={"stride": 4, "seed": 1})
    assert find_differences([first, alike]) == ()
    other = make_provenance(branches="ann", settings={"stride": 2, "seed": 0})
    assert find_differences([first, other]) == ("branches is hybrid, ann", "stride is 4, 2")
