"""Scoring: what counts, what is refused."""

import dataclasses
import math

import pytest
import torch
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.types import Batch
from respike.zoo.predictions import merge_crops
from respike.zoo.scoring import predict, score, score_predictions
from torch import Tensor, nn

from tests.zoo.batches import Batches, make_batch


class Oracle(nn.Module):
    """Answers from a list, row by row, whatever it is shown."""

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
    # sure once and unsure twice: the mean probability of the right class is above a half, the majority is not
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
    """A source that says how many views a pass has: more than its batches hold, where some are kept back."""

    num_views = 3
    is_training = False


def test_a_pass_that_lacks_views_is_no_score() -> None:
    whole = [_batch([0, 1], ["a", "b"], [0, 0]), _batch([0, 0], ["c", "a"], [0, 0], [True, False])]
    assert score(Oracle([YES, NO, YES, NO]), Counted(whole), num_classes=2).num_clips == 3
    # the row that only fills up is none of them
    with pytest.raises(RespikeError, match="1 view came of the 3 that the loader has"):
        score(Oracle([YES, NO]), Counted(whole[1:]), num_classes=2)


def test_a_loader_to_train_with_is_no_source_of_a_score() -> None:
    source = Counted([_batch([0, 1, 0], ["a", "b", "c"], [0, 0, 0])])
    source.is_training = True
    for call in (score, predict):
        with pytest.raises(SettingError, match="the loader is one to train with") as caught:
            call(Oracle([YES, NO, YES]), source, num_classes=2)
        assert "training=False" in caught.value.hint


def test_scoring_begins_at_the_first_batch_whatever_was_seen_before() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    score(Oracle([YES, NO]), source, num_classes=2)
    assert source.epochs == [0]


def test_loss_is_the_mean_cross_entropy() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    expected = nn.functional.cross_entropy(torch.tensor([YES, UNSURE]), torch.tensor([0, 1]))
    assert score(Oracle([YES, UNSURE]), source, num_classes=2).loss == pytest.approx(float(expected), rel=1e-5)


def test_json_has_exactly_the_promised_form() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    scores = score(Oracle([YES, YES]), source, num_classes=2, fingerprint="abc", forced=True)
    half = {"top1": 0.5, "top5": 1.0, "mean_class_accuracy": 0.5}
    told = scores.to_json(["first", "second"])
    assert list(told)[:6] == ["clip", "video", "num_clips", "num_videos", "fingerprint", "forced"]
    surety = math.exp(4) / (math.exp(4) + 1)
    assert told == {
        "clip": half,
        "video": half,
        "num_clips": 2,
        "num_videos": 2,
        "fingerprint": "abc",
        "forced": True,
        "num_views": 2,
        "loss": pytest.approx(2 - math.log(surety)),
        # always sure, half the time right
        "calibration": {"clip": pytest.approx(surety - 0.5), "video": pytest.approx(surety - 0.5)},
        "per_class": [
            {"class": "first", "num_clips": 1, "clip_top1": 1, "num_videos": 1, "video_top1": 1},
            {"class": "second", "num_clips": 1, "clip_top1": 0, "num_videos": 1, "video_top1": 0},
        ],
    }


def test_a_class_without_clips_has_no_share() -> None:
    source = Batches([_batch([0, 0], ["a", "b"], [0, 0])])
    (_, empty) = score(Oracle([YES, YES]), source, num_classes=2).per_class
    assert (empty.num_clips, empty.clip_top1, empty.num_videos, empty.video_top1) == (0, None, 0, None)


def test_a_clip_is_the_mean_of_its_crops_and_a_video_of_all_its_views() -> None:
    # of video a: one clip sure of the right class in one crop of three, another sure of it in all
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


def test_each_layer_gets_its_own_mode_back() -> None:
    model = nn.Sequential(Oracle([YES]), nn.Identity())
    model.forward = model[0].forward  # type: ignore[method-assign]
    model.train()
    model[1].eval()
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2)
    assert [module.training for module in (model, model[0], model[1])] == [True, True, False]


class Elsewhere(Oracle):
    """A network on a device without memory, which answers from the CPU."""

    def __init__(self) -> None:
        super().__init__([YES])
        self.weight = nn.Parameter(torch.empty(1, device="meta"))


def test_a_network_answers_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    monkeypatch.setattr(Batch, "to", lambda batch, place, **_: places.append(place) or batch)
    model = Elsewhere()
    # moved to the CPU it would have needed values that it does not have
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2)
    assert (model.weight.device.type, places) == ("meta", [torch.device("meta")])


def test_a_network_is_moved_to_a_device_that_is_given() -> None:
    model = Oracle([YES])
    model.weight = nn.Parameter(torch.zeros(1))
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2, device="meta")
    assert model.weight.device.type == "meta"


def test_an_empty_source_is_named() -> None:
    with pytest.raises(RespikeError, match="no clip to score"):
        score(Oracle([YES]), Batches([]), num_classes=2)


def test_one_class_cannot_be_scored() -> None:
    with pytest.raises(SettingError, match="at least 2"):
        score(Oracle([YES]), Batches([]), num_classes=1)


def test_logits_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(MismatchError, match="2 classes, the data has 3"):
        score(Oracle([YES]), Batches([_batch([0], ["a"], [0])]), num_classes=3)


def test_a_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(MismatchError, match="from 2 to 2"):
        score(Oracle([YES]), Batches([_batch([2], ["a"], [0])]), num_classes=2)


def test_an_answer_that_is_not_a_number_names_its_clip() -> None:
    with pytest.raises(RespikeError, match="clip 3 of b"):
        score(Oracle([YES, [float("nan"), 0.0]]), Batches([_batch([0, 0], ["a", "b"], [0, 3])]), num_classes=2)
