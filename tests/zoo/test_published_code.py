"""Published code: with its weights our network gives its answers; its files are read without running code."""

import argparse
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from respike.common.errors import CheckpointError
from respike.zoo.factory import create_model
from respike.zoo.nn.lif import LIF
from respike.zoo.published_code import import_published, load_published_state_dict, published_name, read_published_file
from safetensors.torch import save_file

from tests.zoo import golden
from tests.zoo.batches import make_batch, make_data_spec


@pytest.fixture(scope="module")
def expected():
    return golden.load()


@pytest.fixture(scope="module")
def state_dict(expected):
    return {name: torch.from_numpy(np.asarray(golden.weights(name, shape))) for name, shape in expected["state_dict"]}


@pytest.fixture(scope="module")
def model(state_dict):
    model = create_model("respike_r18", num_classes=101).double().eval()
    load_published_state_dict(model, state_dict)
    return model


@pytest.fixture(scope="module")
def answer(model):
    """Logits `[N, K]`, each LIF layer's mean firing rate a step, and each fusion's output at its own resolution."""
    groups = torch.from_numpy(golden.frames()).view(1, 2, 4, 3, 224, 224)
    residuals = groups[:, :, 1:].short() - groups[:, :, :1].short()
    rates, fused, handles = [], [], []
    for module in model.modules():
        if isinstance(module, LIF):
            note = module.register_forward_hook(lambda _, __, spikes: rates.append(spikes))
            handles.append(note)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for fusion in model.fusions:
            own = fusion.fuse
            patch.setattr(fusion, "fuse", lambda *maps, own=own: fused.append(own(*maps)) or fused[-1])
        logits = model.group_logits(groups[:, :, 0], residuals, "rgb")[0]
    for handle in handles:
        handle.remove()
    return logits, [[step.mean().item() for step in spikes.chunk(3)] for spikes in rates], fused


def test_the_frames_are_those_the_answers_were_made_on(expected):
    assert zlib.crc32(golden.frames()[None].tobytes()) == expected["frames_crc32"]


def test_logits_are_the_published_network_s(answer, expected):
    error = (answer[0] - torch.tensor(expected["logits"], dtype=torch.float64)).abs().max().item()
    assert error <= 1e-8 * expected["logits_std"]


def test_firing_rates_are_the_published_network_s(answer, expected):
    assert answer[1] == list(expected["rates"].values())


@pytest.mark.parametrize("scale", range(4))
def test_fused_maps_are_the_published_network_s(answer, expected, scale):
    for step, wanted in zip(answer[2][scale].chunk(3), expected["fused"][str(scale + 1)], strict=True):
        assert step.mean().item() == pytest.approx(wanted["mean"], rel=1e-8)
        assert step.std().item() == pytest.approx(wanted["std"], rel=1e-8)
        assert step.flatten()[:4].tolist() == pytest.approx(wanted["first"], rel=1e-8)


def test_the_map_of_names_is_one_to_one_and_complete(model, state_dict):
    assert sorted(map(published_name, model.state_dict())) == sorted(state_dict)


def test_a_data_parallel_prefix_is_taken_off(model, state_dict):
    other = create_model("respike_r18", num_classes=101).double()
    load_published_state_dict(other, {f"module.{name}": tensor for name, tensor in state_dict.items()})
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("fc.bias"), "lacks 1 tensor, the first is fc.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 tensor too many, the first is extra"),
        (lambda state: state.update({"fc.bias": torch.zeros(51)}), r"fc.bias is \[51\], needed is \[101\]"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_named_and_fills_nothing(model, state_dict, change, words):
    before = model.head.bias.clone()
    wrong = {name: tensor + 1 for name, tensor in state_dict.items()}
    change(wrong)
    with pytest.raises(CheckpointError, match=words):
        load_published_state_dict(model, wrong)
    assert torch.equal(model.head.bias, before)


def test_a_network_of_another_build_is_refused(state_dict):
    with pytest.raises(CheckpointError, match=r"lacks \d+ tensors.*respike_tiny"):
        load_published_state_dict(create_model("respike_tiny", num_classes=101), state_dict)


CLASSES = tuple(f"c{label:03d}" for label in range(101))


def _write(path, state_dict, how):
    if how == "alone":
        torch.save(state_dict, path)
    elif how == "beside an optimizer, parallel":
        held = {"model": {f"module.{name}": each for name, each in state_dict.items()}, "optimizer": {"state": {}}}
        torch.save(held | {"epoch": 3, "args": argparse.Namespace(lr=0.1)}, path)
    else:
        save_file({name: each.contiguous() for name, each in state_dict.items()}, path)
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [("a.pth", "alone"), ("b.pth.tar", "beside an optimizer, parallel"), ("c.safetensors", "as safetensors")],
)
def test_a_file_of_the_published_code_becomes_our_network(model, state_dict, tmp_path, name, how):
    path = _write(tmp_path / name, state_dict, how)
    imported = import_published(read_published_file(path), make_data_spec(classes=CLASSES))
    assert imported.config.name == "respike_r18"
    for mine, theirs in zip(imported.state_dict().values(), model.state_dict().values(), strict=True):
        # as our checkpoints hold them
        assert mine.dtype in (torch.float32, torch.int64)
        assert torch.equal(mine, theirs.to(mine.dtype))


# in the order of classInd.txt, which is not that of Python's sort
OFFICIAL_ORDER = ("Archery", "Hammering", "HammerThrow", "JumpingJack", "JumpRope", "YoYo")


@pytest.mark.parametrize(("dataset", "class_order"), [("ucf101", None), ("folder", "names")])
def test_an_import_keeps_the_logit_of_each_class_name(dataset, class_order):
    torch.manual_seed(0)
    theirs = create_model("respike_r18", num_classes=len(OFFICIAL_ORDER)).eval()
    torch.nn.init.normal_(theirs.head.bias)
    state_dict = {published_name(name): tensor.clone() for name, tensor in theirs.state_dict().items()}
    spec = make_data_spec(dataset=dataset, classes=OFFICIAL_ORDER)
    ours = import_published(state_dict, spec, class_order)
    batch = make_batch([0, 1])
    with torch.no_grad():
        before, after = (model(batch.keys, batch.residuals, batch.color) for model in (theirs, ours))
    assert sorted(OFFICIAL_ORDER) != list(OFFICIAL_ORDER)
    for column, name in enumerate(OFFICIAL_ORDER):
        # the sums of a matrix product may be in another order
        assert torch.allclose(after[:, column], before[:, sorted(OFFICIAL_ORDER).index(name)], atol=1e-6)


@pytest.mark.parametrize(("dataset", "class_order"), [("ucf101", "data"), ("hmdb51", None), ("kinetics400", None)])
def test_an_import_in_the_order_of_the_data_keeps_the_head(dataset, class_order):
    theirs = create_model("respike_r18", num_classes=len(OFFICIAL_ORDER))
    state_dict = {published_name(name): tensor for name, tensor in theirs.state_dict().items()}
    ours = import_published(state_dict, make_data_spec(dataset=dataset, classes=OFFICIAL_ORDER), class_order)
    assert torch.equal(ours.head.weight, theirs.head.weight)


def test_a_deep_backbone_is_told_by_its_tensors():
    state_dict = {
        published_name(name): each for name, each in create_model("respike_r50", num_classes=3).state_dict().items()
    }
    assert import_published(state_dict, make_data_spec()).config.name == "respike_r50"


class _Code:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(state_dict, tmp_path):
    trace = tmp_path / "was-run"
    torch.save({"state_dict": state_dict, "more": _Code(trace)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="no weights that can be read without running code"):
        read_published_file(tmp_path / "a.pth")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no checkpoint", "no weights that can be read without running code"),
        (b"", "no weights that can be read without running code"),
        ({"epoch": 3}, "holds no state dict"),
        ([torch.zeros(1)], "holds no state dict"),
        (None, "there is no file"),
    ],
)
def test_a_file_without_a_state_dict_is_told(tmp_path, content, words):
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=words):
        read_published_file(path)


def test_another_number_of_classes_or_another_network_is_refused(state_dict):
    with pytest.raises(CheckpointError, match="the checkpoint has 101 classes, the data 3"):
        import_published(state_dict, make_data_spec())
    with pytest.raises(CheckpointError, match=r"lacks ann_layer1\.0\.conv1\.weight"):
        import_published({"fc.weight": torch.zeros(3, 8)}, make_data_spec())
