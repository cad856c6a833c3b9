"""Transfer: what fits comes along, what does not starts from chance, and both are said."""

import pytest
import torch
from respike.common.errors import MismatchError
from respike.zoo.compatibility import transfer_weights
from respike.zoo.factory import create_model
from respike.zoo.nn.respike import ReSpike

CLASSES = ("jump", "wave", "run")


def _make(seed: int, **options: object) -> ReSpike:
    torch.manual_seed(seed)
    return create_model(**({"name": "respike_tiny", "num_classes": 3} | options))


def test_with_the_same_classes_all_comes_along() -> None:
    source, target = _make(0), _make(1)
    transfer = transfer_weights(source, CLASSES, target, CLASSES)
    assert transfer.fresh == ()
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize("classes", [("jump", "wave"), ("wave", "jump", "run")], ids=["fewer", "in another order"])
def test_with_other_classes_the_head_starts_from_chance(classes: tuple[str, ...]) -> None:
    source, target = _make(0), _make(1, num_classes=len(classes))
    head = target.head.weight.clone()
    transfer = transfer_weights(source, CLASSES, target, classes)
    assert (transfer.loaded, transfer.fresh) == (("ANN branch", "SNN branch", "fusions"), ("head",))
    assert str(transfer) == "loaded: ANN branch, SNN branch, fusions; from chance: head"
    assert torch.equal(target.head.weight, head)
    assert torch.equal(target.snn.stem.conv.weight, source.snn.stem.conv.weight)


def test_a_branch_alone_gives_what_it_has() -> None:
    transfer = transfer_weights(_make(0, branches="ann"), CLASSES, _make(1), CLASSES)
    assert transfer.loaded == ("ANN branch",)
    assert transfer.fresh == ("SNN branch", "fusions", "head")


def test_networks_without_a_common_branch_are_refused() -> None:
    with pytest.raises(MismatchError, match="no branch of respike_tiny fits"):
        transfer_weights(_make(0, branches="ann"), CLASSES, _make(1, branches="snn"), CLASSES)
