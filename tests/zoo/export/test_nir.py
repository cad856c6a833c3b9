"""NIR promises: another simulator reads the file and fires the same spikes."""

import contextlib
import dataclasses
import io
from functools import partial
from pathlib import Path

import pytest
import torch
from respike.common.errors import RespikeError, SettingError
from respike.zoo.export import build_nir, export_nir
from respike.zoo.factory import create_model
from respike.zoo.nn.lif import LIF, LIFSettings

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


def spikes_of_snntorch(path: Path, batch, *, double: bool):
    """The same, read by snnTorch, whose import makes all float32; with `double` the file's own numbers are put in."""
    snntorch = pytest.importorskip("snntorch")
    reader = pytest.importorskip("snntorch.import_nir")
    graph = nir.read(path)
    # it tells on stdout how it reads each neuron
    with contextlib.redirect_stdout(io.StringIO()):
        network = reader.import_from_nir(nir.read(path))
    if double:
        in_double_precision(network.double(), {plain(name): node for name, node in graph.nodes.items()})
    seen: dict[str, list[torch.Tensor]] = {}
    neurons = {name: module for name, module in network.named_modules() if isinstance(module, snntorch.Leaky)}
    for name, module in neurons.items():
        module.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, []).append(out))
    outputs = []
    num_groups, num_steps = batch.residuals.shape[1:3]
    with torch.no_grad():
        for group in range(num_groups):
            for module in neurons.values():
                module.reset_mem()
            for step in range(num_steps):
                # one clip without a batch: the graph's flatten begins at its first dimension
                residual = batch.residuals[0, group, step].to(torch.float64 if double else torch.float32)
                outputs.append(network(residual)[0])
    spikes = {n: torch.stack(s).view(num_groups, num_steps, 1, *s[0].shape)[:, :, 0] for n, s in seen.items()}
    return spikes, torch.stack(outputs).mean(0)[None]


def in_double_precision(network, nodes) -> None:
    """The numbers of the file in place of those that the import rounded; neurons whose spikes are float64."""
    for name, module in network.named_modules():
        node = nodes.get(plain(name))
        if isinstance(node, nir.Conv2d | nir.Affine):
            module.weight.data, module.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
        elif isinstance(node, nir.LIF):
            tau = float(node.tau.flat[0]) / 1e-4
            # u = τ·h charges by βu + x and fires above τ·threshold
            module.beta.fill_(1 - 1 / tau)
            module.threshold.fill_(tau * float(node.v_threshold.flat[0]))
            module.spike_grad = lambda overshoot: (overshoot > 0).to(overshoot.dtype)


def plain(name: str) -> str:
    return "".join(character for character in name if character.isalnum())


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize(
    "read", [spikes_of_spikingjelly, partial(spikes_of_snntorch, double=True)], ids=["spikingjelly", "snntorch"]
)
def test_another_library_fires_the_same_spikes_from_the_file(read, color: str, tmp_path: Path):
    batch = clips(1, color)
    model = settled("snn", batch, torch.float64)
    export_nir(model, tmp_path / "net.nir", image_size=32, color=color, double=True)
    ours, logits = our_spikes(model, batch)
    theirs, answer = read(tmp_path / "net.nir", batch)
    theirs = {plain(name): spikes for name, spikes in theirs.items()}
    assert len(ours) == len(theirs) == 8
    for name, spikes in ours.items():
        assert 0 < spikes.mean() < 1
        assert torch.equal(spikes, theirs[plain(name)]), name
    torch.testing.assert_close(answer, logits, rtol=0, atol=1e-10)


def test_only_a_potential_that_meets_the_threshold_tells_snntorch_from_us():
    leaky = pytest.importorskip("snntorch").Leaky(beta=0.5, threshold=2.0, reset_mechanism="zero", reset_delay=False)
    for current, fires in ((2.0, 0.0), (2.0 + 1e-6, 1.0)):  # τ = 2: a potential of 1, the threshold, and a little more
        assert leaky(torch.tensor([current]), torch.zeros(1))[0] == fires
    assert LIF(LIFSettings(tau=2.0))(torch.tensor([2.0]), 1) == 1.0


def test_snntorch_as_it_imports_flips_next_to_no_spike(tmp_path: Path):
    batch = clips(1)
    model = settled("snn", batch, torch.float64)
    export_nir(model, tmp_path / "net.nir", image_size=32, color="ycc")
    ours, logits = our_spikes(model, batch)
    theirs, answer = spikes_of_snntorch(tmp_path / "net.nir", batch, double=False)
    theirs = {plain(name): spikes for name, spikes in theirs.items()}
    num_flipped = sum(int((spikes != theirs[plain(name)]).sum()) for name, spikes in ours.items())
    assert num_flipped <= 1e-3 * sum(spikes.numel() for spikes in ours.values())
    torch.testing.assert_close(answer.double(), logits, rtol=0, atol=0.05 * float(logits.abs().max()))


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
    with pytest.raises(RespikeError, match="neither attention nor key frames") as refused:
        build_nir(create_model("respike_tiny", num_classes=5, branches=branches), image_size=32, color="ycc")
    assert "branches snn" in refused.value.hint


def test_a_size_that_does_not_halve_five_times_is_refused():
    with pytest.raises(SettingError, match="48×48"):
        build_nir(settled("snn", clips(1)), image_size=48, color="ycc")


def test_a_soft_reset_is_refused_with_the_reason():
    model = settled("snn", clips(1, "rgb"), torch.float64)
    neurons = next(module for module in model.modules() if isinstance(module, LIF))
    neurons.settings = dataclasses.replace(neurons.settings, reset="soft")
    with pytest.raises(RespikeError, match="soft reset"):
        build_nir(model, image_size=32, color="rgb")
