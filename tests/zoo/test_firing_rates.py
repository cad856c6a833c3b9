"""Firing rates: measured as they are, without a trace; silence is told once."""

import torch
from respike.zoo.factory import create_model
from respike.zoo.firing_rates import describe_abnormal_layers, measure_firing_rates
from respike.zoo.nn.lif import LIF

from tests.zoo.batches import make_batch


def test_rates_are_the_share_of_ones_that_a_layer_puts_out() -> None:
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=3).train()
    batch = make_batch([0, 1, 2])
    spikes = []
    layers = [module for module in model.modules() if isinstance(module, LIF)]
    handle = layers[0].register_forward_hook(lambda _module, _inputs, output: spikes.append(output.clone()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rates = measure_firing_rates(model, batch)
    handle.remove()
    assert len(rates) == len(layers)
    assert set(spikes[0].unique().tolist()) == {0.0, 1.0}
    assert next(iter(rates.values())) == float((spikes[0] == 1).float().mean())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_a_dead_and_a_saturated_layer_are_told_when_they_become_so() -> None:
    rates = {"a": 0.0005, "b": 0.5, "c": 0.99}
    told = describe_abnormal_layers(rates, {})
    assert [message.split(":")[0] for message in told] == [
        "the spiking layer a is dead",
        "the spiking layer c is saturated",
    ]
    assert describe_abnormal_layers(rates, rates) == []
    assert len(describe_abnormal_layers({"a": 0.99}, {"a": 0.0})) == 1
