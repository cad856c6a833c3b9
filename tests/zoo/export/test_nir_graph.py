"""NIR promises: another simulator reads the file and fires the same spikes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from respike.errors import RespikeError, SettingError
from respike.zoo.export import build_nir, export_nir
from respike.zoo.nn.lif import LIF

from tests.zoo.export.networks import clips, settled

nir = pytest.importorskip("nir")


def our_spikes(model, batch):
    """Spikes of each LIF layer `[N, R, C, H, W]` of one clip, by name, and the logits."""
    spikes, handles = {}, []
    num_groups, num_steps = batch.residuals.shape[1:3]
    for name, module in model.named_modules():
        if isinstance(module, LIF):
            handles.append(module.register_forward_hook(lambda _, __, out, name=name: spikes.update({name: out})))
    with torch.no_grad():
        logits = model(batch.keys, batch.residuals, batch.color)
    for handle in handles:
        handle.remove()
    return {n: s.view(num_steps, num_groups, *s.shape[1:]).transpose(0, 1) for n, s in spikes.items()}, logits


def spikes_of_spikingjelly(path: Path, batch):
    """The same of the file, read by SpikingJelly and run step by step, and its outputs averaged."""
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    network = exchange.import_from_nir(path, dtype=torch.float64)
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in network.named_modules():
        if type(module).__name__ == "_NIRStatefulModule":
            module.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, []).append(out[0]))
    outputs = []
    num_groups, num_steps = batch.residuals.shape[1:3]
    with torch.no_grad():
        for group in range(num_groups):
            state = None
            for step in range(num_steps):
                output, state = network(batch.residuals[:1, group, step].double(), state)
                outputs.append(output)
    spikes = {n: torch.cat(s).view(num_groups, num_steps, *s[0].shape[1:]) for n, s in seen.items()}
    return spikes, torch.stack(outputs).mean(0)


def plain(name: str) -> str:
    return "".join(character for character in name if character.isalnum())


@pytest.mark.parametrize("color", ["ycc", "rgb"])
def test_spikingjelly_fires_the_same_spikes_from_the_file(color: str, tmp_path: Path):
    batch = clips(1, color)
    model = settled("snn", batch, torch.float64)
    export_nir(model, tmp_path / "net.nir", image_size=32, color=color, double=True)
    ours, logits = our_spikes(model, batch)
    theirs, answer = spikes_of_spikingjelly(tmp_path / "net.nir", batch)
    theirs = {plain(name): spikes for name, spikes in theirs.items()}
    assert len(ours) == len(theirs) == 8
    for name, spikes in ours.items():
        assert 0 < spikes.mean() < 1
        assert torch.equal(spikes, theirs[plain(name)]), name
    torch.testing.assert_close(answer, logits, rtol=0, atol=1e-10)


def test_in_single_precision_the_answer_is_the_same_to_rounding(tmp_path: Path):
    batch = clips(1)
    model = settled("snn", batch)
    export_nir(model, tmp_path / "net.nir", image_size=32, color="ycc")
    assert nir.read(tmp_path / "net.nir").nodes["head"].weight.dtype == "float32"
    with torch.no_grad():
        logits = model(batch.keys, batch.residuals, batch.color)
    _, answer = spikes_of_spikingjelly(tmp_path / "net.nir", batch)
    torch.testing.assert_close(answer.float(), logits, rtol=0, atol=0.05 * float(logits.abs().max()))


def test_the_file_says_how_long_a_step_is_and_what_the_classes_are(tmp_path: Path):
    model = settled("snn", clips(1))
    num_nodes = export_nir(model, tmp_path / "net.nir", image_size=32, color="ycc", facts={"classes": ["a", "b"]})
    graph = nir.read(tmp_path / "net.nir")
    assert len(graph.nodes) == num_nodes
    assert float(graph.metadata["step_seconds"]) == 1e-4
    assert graph.metadata["classes"] == '["a", "b"]'


@pytest.mark.parametrize("branches", ["hybrid", "concat", "ann"])
def test_attention_and_key_frames_have_no_place_in_nir(branches: str):
    with pytest.raises(RespikeError, match="attention has no place") as refused:
        build_nir(settled(branches, clips(2)), image_size=32, color="ycc")
    assert "--branches snn" in refused.value.hint


def test_a_size_that_does_not_halve_five_times_is_refused():
    with pytest.raises(SettingError, match="48×48"):
        build_nir(settled("snn", clips(1)), image_size=48, color="ycc")


def test_a_soft_reset_is_refused_with_the_reason():
    model = settled("snn", clips(1, "rgb"), torch.float64)
    neurons = next(module for module in model.modules() if isinstance(module, LIF))
    neurons.settings = dataclasses.replace(neurons.settings, reset="soft")
    with pytest.raises(RespikeError, match="soft reset"):
        build_nir(model, image_size=32, color="rgb")
