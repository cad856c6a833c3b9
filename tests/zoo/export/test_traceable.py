"""Traceable promises: neurons written out step by step are the network's own."""

import pytest
import torch
from respike.common.errors import RespikeError
from respike.zoo.export.onnx import PlainLIF, TraceableNetwork
from respike.zoo.factory import create_model
from respike.zoo.nn.lif import LIF, LIFSettings


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
