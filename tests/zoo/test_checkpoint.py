"""Checkpoint: what was saved comes back to the bit; what does not fit is named; no crash leaves a pair that fails."""

import dataclasses
import json
import random
import resource
import shutil

import pytest
import respike.zoo.checkpoint as checkpoint_module
import torch
from respike.common.errors import CheckpointError
from respike.common.files import sha256_of_bytes
from respike.types import DataSpec
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
from respike.zoo.checkpoint_spec import seal_spec
from respike.zoo.factory import create_model
from respike.zoo.models import ModelOptions
from safetensors.torch import load_file, save, save_file

CLASSES = ("jump", "wave", "run")


def spec_of(model, **changes):
    facts = {
        "model": model.config.to_json(),
        "image_size": 64,
        "data": DataSpec(dataset="demo", split=1, evaluation_subset="test", classes=CLASSES, settings={"stride": 4}),
        "training": {"epochs": 2},
        "epoch": 1,
        "scores": {"top1": 0.5},
        "train_videos": ("a", "b"),
    }
    return CheckpointSpec(**(facts | changes))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("respike_tiny", num_classes=3, branches="snn").eval()


@pytest.fixture(scope="module")
def saved_once(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "best.safetensors", model, spec_of(model))
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    return shutil.copytree(saved_once, tmp_path / "run") / "best.safetensors"


def edit_spec(path, change):
    spec_path = path.with_suffix(".json")
    spec = json.loads(spec_path.read_text())
    del spec["spec_sha256"]
    change(spec)
    spec_path.write_text(seal_spec(spec))


def replace_weights(path, content):
    path.write_bytes(content)
    edit_spec(path, lambda spec: spec.update(weights_sha256=sha256_of_bytes(content)))


@pytest.mark.parametrize("named", ["best.safetensors", "best.json", "best", "."])
def test_every_way_to_name_it_loads_it_to_the_bit(saved, model, named):
    loaded, spec = load_checkpoint(saved.parent / named)
    assert spec == spec_of(model, weights_sha256=spec.weights_sha256)
    assert not loaded.training
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_other_readers_can_open_it(saved, model):
    assert load_file(saved).keys() == model.state_dict().keys()


@pytest.mark.parametrize("moment", range(3))
def test_a_crash_between_any_two_writes_leaves_a_pair_that_loads(saved, model, monkeypatch, moment):
    """The old pair or the new one, wherever it stops: before the first write, after it, before the last rename."""
    changed = create_model("respike_tiny", num_classes=3, branches="snn")
    num_written = 0

    def write(path, content):
        nonlocal num_written
        if num_written == moment:
            raise KeyboardInterrupt
        num_written += 1
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    monkeypatch.setattr(checkpoint_module, "write_atomically", write)
    if moment == 2:  # both written, the rename never comes
        monkeypatch.setattr(checkpoint_module.Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, changed, spec_of(changed, epoch=2))
    loaded, spec = load_checkpoint(saved)
    expected = changed if moment == 2 else model
    assert spec.epoch == (2 if moment == 2 else 1)
    assert torch.equal(loaded.head.weight, expected.head.weight)


def test_a_save_leaves_two_files_and_no_other(saved, model):
    save_checkpoint(saved, model, spec_of(model, epoch=7))
    assert sorted(path.name for path in saved.parent.iterdir()) == ["best.json", "best.safetensors"]
    assert load_checkpoint(saved)[1].epoch == 7


@pytest.mark.parametrize("position", [0, 5, 400, -1])
def test_a_flipped_bit_is_caught(saved, position):
    content = bytearray(saved.read_bytes())
    content[position] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best.safetensors is damaged.*weights_sha256"):
        load_checkpoint(saved)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.99])
def test_a_flipped_bit_in_the_spec_is_caught(saved, share):
    spec_path = saved.with_suffix(".json")
    content = bytearray(spec_path.read_bytes())
    content[int(share * len(content))] ^= 1
    spec_path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best\.json"):
        load_checkpoint(saved)


def test_a_score_changed_by_hand_is_caught(saved):
    spec_path = saved.with_suffix(".json")
    spec_path.write_text(spec_path.read_text().replace('"top1": 0.5', '"top1": 0.9'))
    with pytest.raises(CheckpointError, match="changed or damaged: its spec_sha256"):
        load_checkpoint(saved)


@pytest.mark.slow
def test_a_thousand_flips_and_a_thousand_cuts_are_all_caught(saved):
    generator = random.Random(0)
    whole = {path: path.read_bytes() for path in (saved, saved.with_suffix(".json"))}
    for number in range(2000):
        path = saved if number % 4 < 2 else saved.with_suffix(".json")
        content = bytearray(whole[path])
        place = generator.randrange(len(content))
        if number % 2:
            content[place] ^= 1 << generator.randrange(8)
        else:
            del content[place:]
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(saved)
        path.write_bytes(whole[path])
    load_checkpoint(saved)


def test_cut_weights_are_caught(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="weights_sha256"):
        load_checkpoint(saved)


def header(entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        header({"head.bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}) + bytes(4),
        header(
            {
                "head.bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                "head.weight": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]},
            }
        )
        + bytes(16),
    ],
    ids=["empty", "wrong header", "short", "overlap"],
)
def test_a_broken_file_with_a_fitting_hash_is_refused(saved, content):
    replace_weights(saved, content)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("head.weight"), "lack 1 tensor, the first is head.weight"),
        (lambda state: state.update(more=torch.zeros(1)), "1 tensor too many, the first is more"),
        (lambda state: state.update({"head.weight": torch.zeros(3, 95)}), r"head.weight is F32 \[3, 95\], needed is"),
        (lambda state: state.update({"head.weight": torch.zeros(3, 96).half()}), "head.weight is F16"),
        (lambda state: state.update({"head.bias": torch.zeros(4)}), r"head.bias is \[4\], needed is \[3\]"),
        (lambda state: state.pop("head.bias"), "head.bias is missing"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(saved, model, change, words):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    change(state)
    replace_weights(saved, save(state))
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec: spec.pop("scores"), "lacks the field 'scores'"),
        (lambda spec: spec.update(more=1), "unknown field 'more'"),
        (lambda spec: spec.update(epoch="1"), "field 'epoch' is a str"),
        (lambda spec: spec["data"].pop("classes"), "field 'data'"),
        (lambda spec: spec["data"].update(classes=["jump"]), "num_classes 3, its data 1 classes"),
        (lambda spec: spec["model"].pop("name"), "lacks the field 'name'"),
        (lambda spec: spec["model"].update(name="hf-hub:someone/else"), "there is no model 'hf-hub:someone/else'"),
        (lambda spec: spec["model"].update(num_classes=10**12), "num_classes 1000000000000"),
        (lambda spec: spec["model"].update(branches="both"), "field branches is 'both'"),
        (lambda spec: spec["model"]["backbone"].update(timm_name="hf-hub:a/b"), "timm has no network 'hf-hub:a/b'"),
    ],
)
def test_a_spec_that_does_not_fit_names_the_field(saved, change, words):
    edit_spec(saved, change)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "\xff"])
def test_a_spec_that_is_no_json_object_is_refused(saved, text):
    saved.with_suffix(".json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"best\.json"):
        load_checkpoint(saved)


def test_missing_files_are_named(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"looked for .*none.safetensors"):
        load_checkpoint(tmp_path / "none")
    saved.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match=r"best\.json is missing"):
        load_checkpoint(saved)


def test_a_pickle_is_never_opened(saved, tmp_path):
    torch.save({"head.bias": torch.zeros(3)}, tmp_path / "w.pt")
    replace_weights(saved, (tmp_path / "w.pt").read_bytes())
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("best.pt", lambda model: model, "let the name end in .safetensors"),
        ("best.safetensors", lambda model: create_model("respike_tiny", num_classes=4), "'branches'|'num_classes'"),
        (
            "best.safetensors",
            lambda model: create_model("respike_tiny", num_classes=3, branches="snn").half(),
            "float16",
        ),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, model, name, change, words):
    with pytest.raises(CheckpointError, match=words):
        save_checkpoint(tmp_path / name, change(model), spec_of(model))
    assert list(tmp_path.iterdir()) == []


def test_weights_without_a_network_s_order_in_memory_are_saved_plainly(saved, model, tmp_path):
    """Channels-last weights are written as any reader expects them."""
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "plain.safetensors"
    )
    plain = load_file(tmp_path / "plain.safetensors")
    assert all(torch.equal(tensor, plain[name]) for name, tensor in load_file(saved).items())


@pytest.fixture(scope="module")
def open_model():
    torch.manual_seed(1)
    options = ModelOptions(backbone="test_resnet", snn_width=32, snn_depth=34, neuron="plif", fusion="additive")
    return create_model("respike", num_classes=3, options=options).eval()


def test_a_network_of_options_is_rebuilt_from_its_spec(open_model, tmp_path):
    path = tmp_path / "open.safetensors"
    save_checkpoint(path, open_model, spec_of(open_model))
    loaded, _ = load_checkpoint(path)
    assert loaded.config == open_model.config
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), open_model.parameters(), strict=True))


def test_a_spec_from_before_an_option_was_added_loads(saved, model):
    edit_spec(saved, lambda spec: spec["model"]["snn"]["lif"].pop("learns_tau"))
    assert load_checkpoint(saved)[0].config == model.config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: model["snn"].update(channels=[4096] * 4, num_blocks=[50] * 4), "the weights lack"),
        (lambda model: model["snn"].update(num_blocks=[10**9] * 4), "allowed are 1 to 100"),
        (lambda model: model["backbone"].update(timm_name="hf-hub:some/one"), "timm has no network 'hf-hub:some/one'"),
        (lambda model: model["backbone"].update(timm_name="resnet18", imagenet_tag=""), "the weights lack"),
        (lambda model: model["backbone"].update(channels=[1, 2]), "gives no four maps"),
        (lambda model: model["backbone"].update(imagenet_tag="none"), "timm has no weights 'test_resnet.none'"),
        (lambda model: model.update(name="respike_r18"), "respike_r18 has"),
    ],
)
def test_a_spec_of_another_network_is_refused_before_memory_is_taken(open_model, tmp_path, change, words):
    path = tmp_path / "open.safetensors"
    save_checkpoint(path, open_model, spec_of(open_model))
    edit_spec(path, lambda spec: change(spec["model"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)
    # the largest of them would take 240 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_spec_survives_json(model):
    spec = dataclasses.replace(spec_of(model), weights_sha256="0" * 64)
    assert CheckpointSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
