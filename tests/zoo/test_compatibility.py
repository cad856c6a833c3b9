"""Compatibility: data that a checkpoint may be scored on, videos it has seen, weights that fit a network."""

from types import SimpleNamespace

import pytest
import torch
from respike.common.errors import MismatchError
from respike.zoo.compatibility import check_compatible, find_mismatches, find_seen, hash_video, transfer_weights
from respike.zoo.factory import create_model
from respike.zoo.nn.respike import ReSpike

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
    assert reasons == ("test videos that were trained on: 1 of 2, the first t/2.avi",)


def test_every_reason_is_given() -> None:
    data = make_data_spec(split=2, settings=SETTINGS | {"stride": 2})
    assert len(find_mismatches(_spec(), data, ["t/1.avi"])) == 3


def test_a_seen_video_is_found_once() -> None:
    hashes = [hash_video(f"class/v_{number}.avi") for number in range(100)]
    assert find_seen(hashes, ["class/v_7.avi", "other/v_7.avi", "class/v_7.avi"]) == ["class/v_7.avi"]


def test_hashes_of_many_videos_are_distinct_and_short() -> None:
    hashes = {hash_video(str(number)) for number in range(20_000)}
    assert len(hashes) == 20_000
    assert {len(value) for value in hashes} == {12}


def test_a_name_that_is_no_utf8_has_a_hash() -> None:
    assert hash_video("caf\udce9.avi") != hash_video("café.avi")


CLASSES = ("jump", "wave", "run")


def _make(seed: int, **options: object) -> ReSpike:
    torch.manual_seed(seed)
    return create_model(**({"name": "respike_tiny", "num_classes": 3} | options))


def test_with_the_same_classes_all_weights_are_copied() -> None:
    source, target = _make(0), _make(1)
    transfer = transfer_weights(source, CLASSES, target, CLASSES)
    assert transfer.fresh == ()
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize("classes", [("jump", "wave"), ("wave", "jump", "run")], ids=["fewer", "in another order"])
def test_with_other_classes_the_head_keeps_its_random_weights(classes: tuple[str, ...]) -> None:
    source, target = _make(0), _make(1, num_classes=len(classes))
    head = target.head.weight.clone()
    transfer = transfer_weights(source, CLASSES, target, classes)
    assert (transfer.loaded, transfer.fresh) == (("ANN branch", "SNN branch", "fusions"), ("head",))
    assert str(transfer) == "loaded: ANN branch, SNN branch, fusions; from random weights: head"
    assert torch.equal(target.head.weight, head)
    assert torch.equal(target.snn.stem.conv.weight, source.snn.stem.conv.weight)


def test_a_branch_alone_gives_what_it_has() -> None:
    transfer = transfer_weights(_make(0, branches="ann"), CLASSES, _make(1), CLASSES)
    assert transfer.loaded == ("ANN branch",)
    assert transfer.fresh == ("SNN branch", "fusions", "head")


def test_networks_without_a_common_branch_are_refused() -> None:
    with pytest.raises(MismatchError, match="no branch of respike_tiny fits"):
        transfer_weights(_make(0, branches="ann"), CLASSES, _make(1, branches="snn"), CLASSES)
