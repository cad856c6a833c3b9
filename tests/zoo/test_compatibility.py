"""Fitting: which data a checkpoint may be scored on, and why not on other."""

from types import SimpleNamespace

import pytest
from respike.common.errors import MismatchError
from respike.zoo.compatibility import check_compatible, find_mismatches, hash_video

from tests.zoo.batches import SETTINGS, make_data_spec


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
        ({"settings": SETTINGS | {"sampling": "uniform"}}, "sampling is None in the checkpoint and 'uniform'"),
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
    assert reasons == ("1 of the 2 test videos was trained on, the first t/2.avi",)


def test_every_reason_is_given() -> None:
    data = make_data_spec(split=2, settings=SETTINGS | {"stride": 2})
    assert len(find_mismatches(_spec(), data, ["t/1.avi"])) == 3
