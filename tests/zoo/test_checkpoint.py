"""Checkpoint: what was saved comes back to the bit, damage is found, what does not fit is named."""

import json
import random
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from respike.common.errors import CheckpointError
from respike.common.files import canonical_json, sha256_of_bytes
from respike.types import DataSpec
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
from respike.zoo.checkpoint_spec import read_spec, seal_file
from respike.zoo.factory import create_model
from respike.zoo.models import ModelOptions
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from tests.zoo.published import pair_json, write_pair

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


def facts_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["respike"])


def edit_spec(path, change):
    """Change the spec in a file and seal it again, as somebody with bad intentions would."""
    fields = facts_of(path)
    change(fields)
    write_sealed(path, load_file(path), fields)


def write_sealed(path, state, fields):
    path.write_bytes(seal_file(save(state, metadata={"respike": canonical_json(fields | {"file_sha256": "0" * 64})})))


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


def test_a_crash_while_saving_leaves_the_file_before(saved, model, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("respike.common.files.os.fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, model, spec_of(model, epoch=2))
    assert load_checkpoint(saved)[1].epoch == 1
    assert [path.name for path in saved.parent.iterdir()] == ["best.safetensors"]


def test_a_checkpoint_is_one_file_of_the_same_bytes(saved, model):
    before = saved.read_bytes()
    save_checkpoint(saved, model, spec_of(model))
    assert saved.read_bytes() == before
    save_checkpoint(saved, model, spec_of(model, epoch=7))
    assert [path.name for path in saved.parent.iterdir()] == ["best.safetensors"]
    assert load_checkpoint(saved)[1].epoch == 7


def test_reading_the_spec_loads_no_torch(saved):
    code = "import sys; from pathlib import Path; from respike.zoo.checkpoint_spec import read_spec\n"
    code += f"print(read_spec(Path({str(saved)!r})).epoch, 'torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "1 False\n"


def test_the_hash_of_the_weights_is_that_of_their_plain_file(saved, tmp_path):
    save_file(load_file(saved), tmp_path / "plain.safetensors")
    assert read_spec(saved).weights_sha256 == sha256_of_bytes((tmp_path / "plain.safetensors").read_bytes())


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("position", [0, 5, 8, 12, 60, 400, 900, -1])
def test_a_flipped_bit_is_found(saved, position):
    flip(saved, position)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: "):
        load_checkpoint(saved)


@pytest.mark.parametrize("position", [0, 1, -1, -8])
def test_a_flipped_bit_in_the_seal_is_found(saved, position):
    start = saved.read_bytes().index(facts_of(saved)["file_sha256"].encode())
    # bit 5 makes a small letter a large one, and a digit something else
    flip(saved, start + position % 64, bit=5)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: "):
        load_checkpoint(saved)


def test_a_score_changed_by_hand_is_found(saved):
    saved.write_bytes(saved.read_bytes().replace(rb"\"top1\":0.5", rb"\"top1\":0.9"))
    with pytest.raises(CheckpointError, match="changed or damaged after it was written: its file_sha256"):
        load_checkpoint(saved)


@pytest.mark.slow
def test_a_thousand_flips_and_a_thousand_cuts_are_found(saved):
    generator = random.Random(0)
    whole = saved.read_bytes()
    end_of_header = 8 + int.from_bytes(whole[:8], "little")
    for number in range(2000):
        content = bytearray(whole)
        place = generator.randrange(end_of_header if number % 4 < 2 else len(content))
        if number % 2:
            content[place] ^= 1 << generator.randrange(8)
        else:
            del content[place:]
        saved.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(saved)
    saved.write_bytes(whole)
    load_checkpoint(saved)


def test_cut_weights_are_found(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="file_sha256"):
        load_checkpoint(saved)


HEAD_BIAS = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}


@pytest.mark.parametrize(
    ("tensors", "num_bytes"),
    [
        ({"head.bias": HEAD_BIAS}, 4),
        ({"head.bias": HEAD_BIAS, "head.weight": HEAD_BIAS | {"data_offsets": [4, 16]}}, 16),
    ],
    ids=["short", "overlap"],
)
def test_a_broken_file_with_a_fitting_hash_is_refused(saved, tensors, num_bytes):
    metadata = {"respike": canonical_json(facts_of(saved) | {"file_sha256": "0" * 64})}
    header = json.dumps({"__metadata__": metadata} | tensors, separators=(",", ":")).encode()
    saved.write_bytes(seal_file(len(header).to_bytes(8, "little") + header + bytes(num_bytes)))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, b"\x10" + bytes(7) + b"[" * 16], ids=["empty", "ones", "nested"]
)
def test_a_file_without_a_spec_is_refused(saved, content):
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="no checkpoint of respike: its header holds no spec"):
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
    write_sealed(saved, state, facts_of(saved))
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec: spec.pop("scores"), "the field scores is missing"),
        (lambda spec: spec.update(more=1), "the field more is unknown"),
        (lambda spec: spec.update(epoch="1"), "the field epoch is '1'"),
        (lambda spec: spec["data"].pop("classes"), "the field data.classes is missing"),
        (lambda spec: spec["data"].update(classes=["jump"]), "num_classes 3, its data 1 classes"),
        (lambda spec: spec["model"].pop("name"), "the field name is missing"),
        (lambda spec: spec["model"].update(name="hf-hub:someone/else"), "there is no model 'hf-hub:someone/else'"),
        (lambda spec: spec["model"].update(num_classes=10**12), "num_classes 1000000000000, its data 3 classes"),
        (lambda spec: spec["model"].update(branches="both"), "field branches is 'both'"),
        (lambda spec: spec["model"]["backbone"].update(timm_name="hf-hub:a/b"), "timm has no network 'hf-hub:a/b'"),
    ],
)
def test_a_spec_that_does_not_fit_names_the_field(saved, change, words):
    edit_spec(saved, change)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "\x00", "{}"])
def test_a_spec_that_is_no_sealed_json_object_is_refused(saved, text):
    save_file(load_file(saved), saved, metadata={"respike": text})
    with pytest.raises(CheckpointError, match=r"best\.safetensors: the spec"):
        load_checkpoint(saved)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"looked for .*none.safetensors"):
        load_checkpoint(tmp_path / "none")


def test_a_pickle_is_never_opened(saved):
    torch.save({"head.bias": torch.zeros(3)}, saved)
    with pytest.raises(CheckpointError, match="no checkpoint of respike"):
        load_checkpoint(saved)


@pytest.mark.parametrize("place", [".json", ".json.next"])
def test_a_checkpoint_of_an_earlier_version_is_read(model, tmp_path, place):
    """Weights and JSON beside each other, also where a crash came between the two renames."""
    path = tmp_path / "best.safetensors"
    write_pair(path, model, spec_of(model), to=place)
    loaded, spec = load_checkpoint(path)
    assert spec == spec_of(model, weights_sha256=spec.weights_sha256)
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_the_spec_of_the_weights_before_is_passed_over(model, tmp_path):
    path = tmp_path / "best.safetensors"
    write_pair(path, model, spec_of(model), to=".json.next")
    path.with_suffix(".json").write_text(pair_json(spec_of(model, epoch=0), weights_sha256="1" * 64))
    assert load_checkpoint(path)[1].epoch == 1


def test_saving_over_an_earlier_pair_leaves_one_file(model, tmp_path):
    path = tmp_path / "best.safetensors"
    for place in (".json", ".json.next"):
        write_pair(path, model, spec_of(model), to=place)
    save_checkpoint(path, model, spec_of(model, epoch=2))
    assert [each.name for each in tmp_path.iterdir()] == ["best.safetensors"]
    assert load_checkpoint(path)[1].epoch == 2


def test_a_json_file_that_is_no_spec_is_left_alone(model, tmp_path):
    (tmp_path / "best.json").write_text('{"mine": 1}')
    save_checkpoint(tmp_path / "best.safetensors", model, spec_of(model))
    assert (tmp_path / "best.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize(
    ("name", "position", "words"),
    [
        ("best.safetensors", -1, "damaged, or not what best.json describes: weights_sha256 is"),
        ("best.json", 0, "best.json: the spec cannot be read as JSON"),
        ("best.json", -20, "best.json: changed or damaged after it was written: its spec_sha256"),
    ],
)
def test_a_flipped_bit_in_an_earlier_pair_is_found(model, tmp_path, name, position, words):
    write_pair(tmp_path / "best.safetensors", model, spec_of(model))
    flip(tmp_path / name, position)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path)


def test_earlier_weights_without_their_json_say_what_to_copy(model, tmp_path):
    write_pair(tmp_path / "best.safetensors", model, spec_of(model))
    (tmp_path / "best.json").unlink()
    with pytest.raises(CheckpointError, match="its header holds no spec") as caught:
        load_checkpoint(tmp_path)
    assert "copy best.json beside it" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("best.pt", lambda model: model, "use a name that ends in .safetensors"),
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
        (lambda model: model["snn"].update(num_blocks=[10**9] * 4), r"the field snn.num_blocks\[0\] is 1000000000"),
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
