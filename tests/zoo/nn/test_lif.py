"""LIF: the neuron as the literature has it, whatever the order in memory and the block size."""

import pytest
import torch
from respike.common.errors import RespikeError, SettingError
from respike.zoo.nn import lif
from respike.zoo.nn.lif import LIF, USUAL_ALPHAS, LIFSettings, integrate
from spikingjelly.activation_based import neuron, surrogate


def currents(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 + 0.5


def run(settings, current, num_steps, weights):
    current = current.clone(memory_format=torch.preserve_format).requires_grad_()
    spikes = LIF(settings)(current, num_steps)
    spikes.backward(weights)
    return spikes.detach(), current.grad


@pytest.mark.parametrize("num_steps", [1, 3, 15])
@pytest.mark.parametrize(("tau", "threshold", "alpha"), [(4 / 3, 1.0, 2.0), (2.0, 0.7, 3.0)])
def test_spikes_membrane_and_gradients_are_those_of_spikingjelly(num_steps, tau, threshold, alpha):
    theirs = neuron.LIFNode(
        tau=tau,
        decay_input=True,
        v_threshold=threshold,
        v_reset=0.0,
        surrogate_function=surrogate.ATan(alpha=alpha),
        detach_reset=True,
        step_mode="m",
        store_v_seq=True,
    )
    settings = LIFSettings(tau=tau, threshold=threshold, surrogate_alpha=alpha)
    current, weights = currents(num_steps * 5, 4, 6, 6), currents(num_steps * 5, 4, 6, 6).flip(0)
    their_current = current.view(num_steps, 5, 4, 6, 6).clone().requires_grad_()
    their_spikes = theirs(their_current)
    their_spikes.backward(weights.view_as(their_spikes))

    spikes, grad = run(settings, current, num_steps, weights)
    again, potentials = integrate(current, num_steps, settings)

    assert 0.2 < spikes.mean() < 0.8
    assert torch.equal(spikes, their_spikes.detach().flatten(0, 1))
    assert torch.equal(spikes, again)
    torch.testing.assert_close(potentials * (1 - spikes), theirs.v_seq.detach().flatten(0, 1), rtol=0, atol=1e-14)
    torch.testing.assert_close(grad, their_current.grad.flatten(0, 1), rtol=0, atol=1e-14)


SURROGATES = {
    "arctan": lambda alpha: surrogate.ATan(alpha=alpha),
    "sigmoid": lambda alpha: surrogate.Sigmoid(alpha=alpha),
    "triangle": lambda alpha: surrogate.PiecewiseQuadratic(alpha=alpha),
}


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("learns_tau", [False, True])
def test_every_option_is_spikingjelly_s(name, reset, learns_tau):
    alpha, tau, threshold = USUAL_ALPHAS[name], 1.6, 0.9
    kinds = {"v_threshold": threshold, "v_reset": 0.0 if reset == "hard" else None, "detach_reset": True}
    kinds |= {"decay_input": True, "surrogate_function": SURROGATES[name](alpha), "step_mode": "m"}
    theirs = neuron.ParametricLIFNode(init_tau=tau, **kinds) if learns_tau else neuron.LIFNode(tau=tau, **kinds)
    theirs = theirs.double()
    settings = LIFSettings(
        tau=tau, threshold=threshold, surrogate=name, surrogate_alpha=alpha, reset=reset, learns_tau=learns_tau
    )
    ours = LIF(settings).double()
    if learns_tau:  # both round the starting value to single precision, each in its own way
        ours.load_state_dict({"rate_logit": theirs.w.detach()})
    current, weights = currents(5 * 3, 4, 6, 6), currents(5 * 3, 4, 6, 6).flip(0)
    their_current = current.view(5, 3, 4, 6, 6).clone().requires_grad_()
    their_spikes = theirs(their_current)
    their_spikes.backward(weights.view_as(their_spikes))
    current.requires_grad_()
    spikes = ours(current, 5)
    spikes.backward(weights)

    assert 0.2 < spikes.mean() < 0.8
    assert torch.equal(spikes, their_spikes.flatten(0, 1))
    assert torch.equal(spikes, integrate(current, 5, settings, ours.rate)[0])
    torch.testing.assert_close(current.grad, their_current.grad.flatten(0, 1), rtol=0, atol=1e-14)
    if learns_tau:
        assert ours.rate_logit.grad.abs() > 0.01
        torch.testing.assert_close(ours.rate_logit.grad, theirs.w.grad, rtol=1e-12, atol=0)


def test_a_learned_tau_starts_where_it_is_told_and_moves():
    layer = LIF(LIFSettings(tau=4 / 3, learns_tau=True))
    assert layer.tau == pytest.approx(4 / 3)
    current = currents(8, 50, dtype=torch.float32)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        layer(current, 4).mean().neg().backward()
        optimizer.step()
    assert abs(layer.tau - 4 / 3) > 1e-3
    assert "(learned)" in repr(layer)


def test_the_gradient_of_tau_is_the_same_in_either_order_in_memory_and_any_block(monkeypatch):
    current, weights = currents(6, 4, 6, 8), currents(6, 4, 6, 8).flip(0)
    grads = []
    for arrange, block in ((torch.contiguous_format, 1 << 16), (torch.channels_last, 1 << 16), (None, 5)):
        monkeypatch.setattr(lif, "_BLOCK_ELEMENTS", block)
        layer = LIF(LIFSettings(learns_tau=True)).double()
        layer(current if arrange is None else current.contiguous(memory_format=arrange), 3).backward(weights)
        grads.append(layer.rate_logit.grad.item())
    assert grads == pytest.approx([grads[0]] * 3, rel=1e-12)


def test_a_soft_reset_keeps_what_lies_above_the_threshold():
    spikes, potentials = integrate(torch.tensor([[2.0], [0.0]]), 2, LIFSettings(tau=2.0, threshold=0.75, reset="soft"))
    assert spikes.flatten().tolist() == [1, 0]
    assert potentials.flatten().tolist() == [1.0, 0.125]


def test_a_membrane_keeps_a_quarter_and_forgets_after_a_spike():
    # h = 0.75; then 0.75/4 + 0.75·1.2 = 1.0875 fires; then 0.75 alone
    spikes, potentials = integrate(torch.tensor([[1.0], [1.2], [1.0]], dtype=torch.float64), 3, LIFSettings())
    assert spikes.flatten().tolist() == [0, 1, 0]
    assert potentials.flatten().tolist() == pytest.approx([0.75, 1.0875, 0.75])


def test_a_potential_at_the_threshold_fires():
    spikes, _ = integrate(torch.tensor([[1.0]]), 1, LIFSettings(tau=1.0))
    assert spikes.item() == 1


def test_the_arctangent_gradient_is_its_formula():
    _, grad = run(LIFSettings(tau=1.0), torch.tensor([[1.0], [1.5]], dtype=torch.float64), 1, torch.ones(2, 1))
    assert grad.flatten().tolist() == pytest.approx([1, 1 / (1 + (torch.pi / 2) ** 2)])


def test_the_rectangle_gradient_is_blocked_away_from_the_threshold():
    settings = LIFSettings(tau=1.0, surrogate="rectangle", surrogate_alpha=2.0)
    _, grad = run(settings, torch.tensor([[0.4], [0.6], [1.4], [1.6]]), 1, torch.ones(4, 1))
    assert grad.flatten().tolist() == [0, 1, 1, 0]


def test_groups_and_calls_share_no_state():
    layer, current = LIF(LIFSettings()), currents(6, 3)
    together = layer(current, 3)
    alone = torch.stack([layer(current[group::2], 3) for group in range(2)], dim=1).flatten(0, 1)
    assert torch.equal(together, alone)
    assert torch.equal(layer(current, 3), together)


@pytest.mark.parametrize("arrange", ["channels_last", "strided"])
def test_the_order_in_memory_changes_nothing(arrange):
    current, weights = currents(6, 4, 6, 8), currents(6, 4, 6, 8).flip(0)
    other = current.contiguous(memory_format=torch.channels_last)
    if arrange == "strided":
        other = currents(6, 4, 6, 16)[..., ::2].copy_(current)
    for mine, reference in zip(
        run(LIFSettings(), other, 3, weights), run(LIFSettings(), current, 3, weights), strict=True
    ):
        assert torch.equal(mine, reference)


def test_the_block_size_changes_nothing(monkeypatch):
    current, weights = currents(6, 4, 5, 7), currents(6, 4, 5, 7).flip(0)
    whole = run(LIFSettings(), current, 3, weights)
    monkeypatch.setattr(lif, "_BLOCK_ELEMENTS", 3)
    for mine, reference in zip(run(LIFSettings(), current, 3, weights), whole, strict=True):
        assert torch.equal(mine, reference)


@pytest.mark.parametrize(
    ("field", "value"), [("tau", 0.9), ("tau", float("nan")), ("threshold", 0.0), ("surrogate_alpha", -1.0)]
)
def test_a_setting_out_of_range_is_named(field, value):
    with pytest.raises(SettingError, match=field):
        LIFSettings(**{field: value})


def test_a_tau_of_one_cannot_be_learned():
    with pytest.raises(SettingError, match="a tau of 1 cannot be learned"):
        LIFSettings(tau=1, learns_tau=True)


def test_an_unknown_reset_lists_the_choices():
    with pytest.raises(SettingError, match="choose from hard, soft"):
        LIFSettings(reset="none")


def test_an_unknown_surrogate_lists_the_choices():
    with pytest.raises(RespikeError, match="choose from arctan, rectangle"):
        LIFSettings(surrogate="arctang")


@pytest.mark.parametrize("arrange", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{}, {"learns_tau": True, "reset": "soft", "surrogate": "triangle"}])
def test_compiled_neurons_are_one_operator_and_compute_the_same(arrange, options):
    layer = LIF(LIFSettings(**options)).double()
    current = currents(6, 4, 6, 8).contiguous(memory_format=arrange)
    weights = currents(6, 4, 6, 8).flip(0)
    found = []
    for run_layer in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        leaf = current.clone(memory_format=torch.preserve_format).requires_grad_()
        layer.zero_grad()
        spikes = run_layer(leaf, 3)
        spikes.backward(weights)
        found.append([spikes.detach(), leaf.grad, *(parameter.grad for parameter in layer.parameters())])
    for mine, reference in zip(*found, strict=True):
        assert mine.stride() == reference.stride()
        assert torch.equal(mine, reference)
