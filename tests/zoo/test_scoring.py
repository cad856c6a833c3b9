"""Scoring: what counts, what is refused."""

from types import SimpleNamespace

import pytest
import torch
from respike.errors import MismatchError, RespikeError, SettingError
from respike.sample import Batch
from respike.zoo.scoring import check_compatible, find_mismatches, score
from respike.zoo.seen import hash_video
from torch import Tensor, nn

from tests.zoo.batches import SETTINGS, Batches, make_batch, make_data_spec


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


def test_loss_is_the_mean_cross_entropy() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    expected = nn.functional.cross_entropy(torch.tensor([YES, UNSURE]), torch.tensor([0, 1]))
    assert score(Oracle([YES, UNSURE]), source, num_classes=2).loss == pytest.approx(float(expected), rel=1e-5)


def test_json_has_exactly_the_promised_form() -> None:
    source = Batches([_batch([0, 1], ["a", "b"], [0, 0])])
    scores = score(Oracle([YES, YES]), source, num_classes=2, fingerprint="abc", forced=True)
    half = {"top1": 0.5, "top5": 1.0, "mean_class_accuracy": 0.5}
    assert scores.to_json() == {
        "clip": half,
        "video": half,
        "num_clips": 2,
        "num_videos": 2,
        "fingerprint": "abc",
        "forced": True,
    }


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_mode_is_restored(training: bool) -> None:
    model = Oracle([YES]).train(training)
    score(model, Batches([_batch([0], ["a"], [0])]), num_classes=2)
    assert model.training is training


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


def _spec(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(data=make_data_spec(**changes), train_videos=(hash_video("t/1.avi"), hash_video("t/2.avi")))


def test_fitting_data_is_accepted() -> None:
    other_looks = SETTINGS | {"short_side": 128, "seed": 3, "clip_step": 2}
    check_compatible(_spec(), make_data_spec(settings=other_looks, fingerprint="0"), ["t/3.avi"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "bytes"}, "data set is 'bits' in the checkpoint and 'bytes' in the data"),
        ({"split": 2}, "split is 1"),
        ({"split": None}, "split is 1 in the checkpoint and None"),
        ({"num_classes": 4}, "3 classes and the data 4"),
        ({"classes": ("class-0", "other", "class-2")}, "class 1 is 'class-1' in the checkpoint and 'other'"),
        ({"settings": SETTINGS | {"stride": 2}}, "stride is 4 in the checkpoint and 2 in the data"),
        ({"settings": SETTINGS | {"clip_length": 16}}, "clip length is 8"),
        ({"settings": SETTINGS | {"frame_stride": 2}}, "frame stride is 1"),
        ({"settings": SETTINGS | {"threshold": 1}}, "threshold is 8"),
        ({"settings": SETTINGS | {"color": "rgb"}}, "color is 'ycc'"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_the_reason(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(MismatchError, match=reason) as caught:
        check_compatible(_spec(), make_data_spec(**changes), [])
    assert "--force" in caught.value.hint


def test_test_videos_that_were_trained_on_are_refused() -> None:
    reasons = find_mismatches(_spec(), make_data_spec(), ["t/2.avi", "t/3.avi", "t/2.avi"])
    assert reasons == ("1 of the 2 test videos were trained on, the first t/2.avi",)


def test_every_reason_is_given() -> None:
    data = make_data_spec(split=2, settings=SETTINGS | {"stride": 2})
    assert len(find_mismatches(_spec(), data, ["t/1.avi"])) == 3
