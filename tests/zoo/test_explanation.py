"""Explanation promises: the attention drawn is the one the network uses, the spikes counted are those that fire."""

import dataclasses

import pytest
import torch
from respike.common.errors import SettingError
from respike.zoo.explanation import ScaleAttention, Spot, explain, strongest_spot
from respike.zoo.nn.lif import LIF

from tests.zoo.export.networks import clips, settled
from tests.zoo.modes import mix_modes, modes_of, modes_seen


@pytest.fixture(scope="module")
def seen():
    """A network, a clip of 2 groups of 3 residuals at 64 × 64, and the explanation of one spot."""
    batch = clips(1, size=64)
    model = settled("hybrid", batch)
    return model, batch, explain(model, batch, Spot(group=1, step=2, row=50, column=20))


def test_the_attention_told_gives_the_answer_that_the_network_gets(seen):
    """Values mixed by the weights, through the output layer, are what the module puts out for the token."""
    model, batch, explanation = seen
    for found in explanation.attention:
        module, caught = model.fusions[found.scale].cross_attention, {}
        handle = module.register_forward_hook(lambda _, args, out, caught=caught: caught.update(args=args, out=out))
        with torch.no_grad():
            model(batch.keys, batch.residuals, batch.color)
        handle.remove()
        (tokens, context), out = caught["args"], caught["out"]
        heads, height, width = found.weights.shape
        row = 2 * 2 + 1  # step 2 of 2 groups, group 1
        place = found.token[0] * width + found.token[1]
        assert tokens.shape[1] == height * width
        values = module.value(context[1]).view(-1, heads, 32)
        weights = torch.from_numpy(found.weights).reshape(heads, -1)
        mixed = module.out(torch.einsum("hm,mhd->hd", weights, values).flatten())
        torch.testing.assert_close(mixed, out[row, place], rtol=1e-4, atol=1e-5)


def test_the_token_holds_the_spot_at_every_fused_scale(seen):
    _, _, explanation = seen
    tokens = {found.scale: (found.weights.shape[1:], found.token) for found in explanation.attention}
    # 64 pixels: 4 × 4 tokens of 16 pixels, 2 × 2 of 32; the spot is at row 50, column 20
    assert tokens == {2: ((4, 4), (3, 1)), 3: ((2, 2), (1, 0))}


def test_each_heads_weights_are_shares(seen):
    for found in seen[2].attention:
        assert found.weights.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-5)


def test_the_top_tokens_are_the_heaviest_in_order():
    weights = torch.tensor([[[0.1, 0.4], [0.2, 0.3]], [[0.1, 0.2], [0.4, 0.3]]]).numpy()
    found = ScaleAttention(scale=0, weights=weights, token=(0, 0))
    assert [place[:2] for place in found.top(3)] == [(0, 1), (1, 0), (1, 1)]
    assert found.top(1)[0][2] == pytest.approx(0.3)
    assert len(found.top(9)) == 4


def test_rates_and_rasters_are_of_the_spikes_that_fire(seen):
    model, batch, explanation = seen
    fired, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, LIF):
            handles.append(module.register_forward_hook(lambda _, __, out, name=name: fired.update({name: out})))
    with torch.no_grad():
        model(batch.keys, batch.residuals, batch.color)
    for handle in handles:
        handle.remove()
    assert [layer.name for layer in explanation.layers] == list(fired)
    for layer in explanation.layers:
        spikes = fired[layer.name]
        side = spikes.shape[-1]
        row, column = 50 * side // 64, 20 * side // 64
        assert layer.rate == pytest.approx(float(spikes.mean()), abs=1e-6)
        assert layer.rate_map.mean() == pytest.approx(layer.rate, abs=1e-6)
        # row 2 · step + group of the folded steps is column 3 · group + step of the raster
        assert layer.step_rates[1, 2] == pytest.approx(float(spikes[2 * 2 + 1].mean()), abs=1e-6)
        assert layer.raster.shape == (spikes.shape[1], 6)
        assert layer.raster[:, 3 * 1 + 2].tolist() == spikes[2 * 2 + 1, :, row, column].bool().tolist()
        assert layer.raster[:, 1].tolist() == spikes[2 * 1 + 0, :, row, column].bool().tolist()


def test_the_verdict_ends_at_the_networks_answer(seen):
    model, batch, explanation = seen
    with torch.no_grad():
        answer = model(batch.keys, batch.residuals, batch.color).softmax(dim=1)[0]
        groups = model.group_logits(batch.keys, batch.residuals, batch.color)[0].softmax(dim=1)
    assert explanation.verdict[-1] == pytest.approx(answer.numpy(), abs=1e-5)
    assert explanation.evidence == pytest.approx(groups.numpy(), abs=1e-5)
    assert explanation.verdict[0] == pytest.approx(explanation.evidence[0], abs=1e-6)


@pytest.mark.parametrize(("branches", "num_scales", "num_layers"), [("concat", 0, 8), ("snn", 0, 8), ("ann", 0, 0)])
def test_what_a_network_lacks_is_not_explained(branches: str, num_scales: int, num_layers: int):
    batch = clips(2)
    model = settled(branches, batch)
    explanation = explain(model, clips(1))
    assert (len(explanation.attention), len(explanation.layers)) == (num_scales, num_layers)
    assert len(explanation.evidence) == 2


def test_a_clip_is_explained_in_eval_mode_and_each_layer_keeps_its_mode():
    model = settled("hybrid", clips(2))
    modes = mix_modes(model)
    with modes_seen(model) as seen:
        explain(model, clips(1))
    assert seen == {False}
    assert modes_of(model) == modes


def moving_patch(color: str):
    batch = clips(1, color, size=64)
    residuals = torch.zeros_like(batch.residuals)
    residuals[0, 1, 0, 0, 40:48, 8:16] = -90
    residuals[0, 0, 2, 0, 16:24, 32:40] = 60
    return dataclasses.replace(batch, residuals=residuals)


@pytest.mark.parametrize("color", ["ycc", "rgb"])
def test_the_strongest_spot_is_where_most_changes(color: str):
    batch = moving_patch(color)
    assert strongest_spot(batch) == Spot(group=1, step=0, row=44, column=12)
    assert strongest_spot(batch, group=0) == Spot(group=0, step=2, row=20, column=36)
    assert strongest_spot(batch, step=2) == Spot(group=0, step=2, row=20, column=36)


@pytest.mark.parametrize("name", ["group", "step", "row", "column"])
def test_a_spot_outside_the_clip_is_named(name: str):
    spot = dataclasses.replace(Spot(group=0, step=0, row=0, column=0), **{name: 99})
    with pytest.raises(SettingError, match=f"{name} is 99"):
        explain(settled("snn", clips(1)), clips(1), spot)


def test_several_clips_at_once_are_refused():
    with pytest.raises(SettingError, match="got 2"):
        explain(settled("snn", clips(1)), clips(2))
