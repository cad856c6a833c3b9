"""ONNX: other programs compute what the network computes, for any number of clips."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from respike.common import extras
from respike.common.errors import RespikeError
from respike.zoo.export import export_onnx
from respike.zoo.export import onnx as onnx_file
from respike.zoo.export.onnx import PlainLIF, TraceableNetwork
from respike.zoo.factory import create_model
from respike.zoo.nn.lif import LIF, LIFSettings
from torch.torch_version import TorchVersion

from tests.zoo.export.networks import clips, settled
from tests.zoo.modes import mix_modes, modes_of, modes_seen

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def export_and_ask(branches: str, folder: Path):
    batch = clips(3)
    model = settled(branches, batch)
    check = export_onnx(model, batch, folder / "net.onnx", facts={"classes": ["a", "b"]})
    assert check.num_clips == 3
    assert check.max_difference <= 1e-3 * check.max_logit
    session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
    more = clips(7)
    feed = {entry.name: getattr(more, entry.name).numpy() for entry in session.get_inputs()}
    with torch.no_grad():
        expected = model(more.keys, more.residuals, more.color)
    torch.testing.assert_close(torch.from_numpy(session.run(None, feed)[0]), expected, rtol=1e-3, atol=1e-3)
    return session


def test_onnx_runtime_answers_as_pytorch_does_and_the_file_says_what_it_takes(tmp_path: Path):
    session = export_and_ask("hybrid", tmp_path)
    shapes = {entry.name: (entry.type, entry.shape[1:]) for entry in session.get_inputs()}
    assert shapes == {
        "keys": ("tensor(uint8)", [2, 3, 32, 32]),
        "residuals": ("tensor(int16)", [2, 3, 3, 32, 32]),
    }
    facts = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert (facts["respike.classes"], facts["respike.color"]) == (["a", "b"], "ycc")


@pytest.mark.slow
@pytest.mark.parametrize("branches", ["snn", "ann", "concat"])
def test_single_branches_answer_as_pytorch_does(branches: str, tmp_path: Path):
    export_and_ask(branches, tmp_path)


def silent_network() -> bytes:
    """A file of the right form that answers 0 whatever it is shown."""
    helper, kinds = onnx.helper, onnx.TensorProto
    inputs = [("keys", kinds.UINT8, 5), ("residuals", kinds.INT16, 6)]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["zeros"], ["logits"])],
        "silent",
        [helper.make_tensor_value_info(name, kind, [None] * rank) for name, kind, rank in inputs],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, [1, 5])],
        [helper.make_tensor("zeros", kinds.FLOAT, [1, 5], [0.0] * 5)],
    )
    opset = helper.make_opsetid("", onnx_file.OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def test_a_file_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_file, "_convert", lambda *_: silent_network())
    with pytest.raises(RespikeError, match="ONNX Runtime and PyTorch differ by"):
        export_onnx(settled("ann", clips(2)), clips(1), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_asks_in_eval_mode_and_each_layer_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_file, "_convert", lambda *_: silent_network())
    model = settled("ann", clips(2))
    modes = mix_modes(model)
    with modes_seen(model) as seen, pytest.raises(RespikeError, match="differ by"):
        export_onnx(model, clips(1), tmp_path / "net.onnx")
    assert seen == {False}
    assert modes_of(model) == modes


def test_a_network_that_cannot_be_converted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(*_: object, **__: object):
        try:
            raise AttributeError("'tuple' object\nhas no attribute 'dtype'")
        except AttributeError as error:
            raise RuntimeError("Failed to convert the exported program\n\nNext steps: …") from error

    monkeypatch.setattr(torch.onnx, "export", failing)
    with pytest.raises(RespikeError, match="cannot convert the network: AttributeError: 'tuple' object has") as refused:
        export_onnx(settled("ann", clips(2)), clips(1), tmp_path / "net.onnx")
    assert f"torch {torch.__version__} and onnxscript" in refused.value.problem
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "old", "told"),
    [
        ("torch", "2.6.0+cu124", r"needs torch 2\.7 or later, installed is 2\.6\.0\+cu124"),
        ("onnxscript", "0.6.2", r"needs onnxscript 0\.7 or later, installed is 0\.6\.2"),
        ("onnx", "1.9.0", r"needs onnx 1\.17 or later, installed is 1\.9\.0"),
    ],
)
def test_a_package_that_is_too_old_is_named_before_anything_is_tried(
    module: str, old: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import_module = extras.importlib.import_module
    aged = SimpleNamespace(__version__=TorchVersion(old))
    monkeypatch.setattr(extras.importlib, "import_module", lambda name: aged if name == module else import_module(name))
    with pytest.raises(RespikeError, match=told) as refused:
        export_onnx(settled("ann", clips(2)), clips(1), tmp_path / "net.onnx")
    assert "pip install 'respike[export]'" in refused.value.hint


def test_a_missing_package_names_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def lacking(name: str):
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", lacking)
    with pytest.raises(RespikeError, match=r"pip install 'respike\[export\]'"):
        export_onnx(settled("snn", clips(1)), clips(1), tmp_path / "net.onnx")


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize(("tau", "learns_tau"), [(1.0, False), (4 / 3, False), (5.0, False), (5.0, True)])
def test_plain_neurons_fire_as_ours_do(tau: float, learns_tau: bool, reset: str):
    neurons = LIF(LIFSettings(tau=tau, threshold=0.7, learns_tau=learns_tau, reset=reset)).double()
    if learns_tau:
        torch.nn.init.constant_(neurons.rate_logit, 0.4)  # not where it began
    current = 3 * torch.randn(15, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    spikes = PlainLIF(neurons)(current, 5)
    assert 0.1 < spikes.mean() < 0.9
    assert torch.equal(spikes, neurons(current, 5))


def test_a_copy_is_made_and_the_network_stays_as_it_was():
    model = create_model("respike_tiny", num_classes=3).train()
    traceable = TraceableNetwork(model, "rgb")
    assert model.training
    assert sum(isinstance(module, LIF) for module in model.modules()) == 8
    kinds = [type(module) for module in traceable.modules()]
    assert (kinds.count(LIF), kinds.count(PlainLIF)) == (0, 8)


def test_neurons_of_another_kind_are_refused_by_name():
    class Resonator(LIF):
        pass

    model = create_model("respike_tiny", num_classes=3)
    model.snn.stages[0].blocks[0].lif1 = Resonator(LIFSettings())
    with pytest.raises(RespikeError, match="Resonator"):
        TraceableNetwork(model, "rgb")
