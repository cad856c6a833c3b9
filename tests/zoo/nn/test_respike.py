"""ReSpike: folded time equals stepping in time, input is normalised exactly, what does not fit is named."""

import dataclasses
import json

import pytest
import torch
from respike.common.errors import SettingError
from respike.types import YCC_TO_RGB
from respike.zoo.factory import create_model
from respike.zoo.models import ModelConfig, ReSpike, model_config
from respike.zoo.nn.lif import LIF, LIFSettings

from tests.zoo.nn import stepping

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def clips(*, num_clips=2, num_groups=2, num_residuals=3, height=64, width=64):
    generator = torch.Generator().manual_seed(3)
    keys = torch.randint(0, 256, (num_clips, num_groups, 3, height, width), generator=generator, dtype=torch.uint8)
    shape = (num_clips, num_groups, num_residuals, 3, height, width)
    return keys, torch.randint(-255, 256, shape, generator=generator, dtype=torch.int16)


def random_model(pools=(4, 2, 1, 1), fusion="faithful", snn=None, **options):
    """A small network, fused as the published ones, in which nothing is at its starting value: no part can hide."""
    torch.manual_seed(0)
    config = model_config("respike_tiny", num_classes=5, **options)
    snn = dataclasses.replace(config.snn, **(snn or {}))
    model = ReSpike(dataclasses.replace(config, fusion_pools=pools, fusion=fusion, snn=snn))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                scale = (2 / tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else 0.2
                tensor.normal_(1.0 if tensor.dim() == 1 and name.endswith("weight") else 0.0, scale)
    return model.eval()


@pytest.mark.parametrize(
    ("pools", "options"),
    [
        ((4, 2, 1, 1), {}),
        ((0, 0, 1, 1), {}),
        ((1, 0, 2, 0), {}),
        ((4, 2, 1, 1), {"fusion": "additive"}),
        ((0, 0, 0, 1), {"snn": {"lif": LIFSettings(reset="soft", threshold=0.8)}}),
        ((0, 0, 0, 1), {"snn": {"lif": LIFSettings(learns_tau=True)}}),
        ((0, 0, 0, 1), {"snn": {"lif": LIFSettings(learns_tau=True, reset="soft"), "num_blocks": (3, 4, 6, 3)}}),
    ],
)
@torch.no_grad()
def test_folded_time_equals_stepping_in_time_to_1e_10(pools, options):
    model = random_model(pools, **options).double()
    keys, residuals = clips(height=64, width=96)
    folded = model.group_logits(keys, residuals, "ycc")
    seen_keys, seen_residuals = model.normalise(keys, residuals, "ycc")
    for clip in range(2):
        for group in range(2):
            stepped = stepping.group_logits(model, seen_keys[clip, group], seen_residuals[clip, group])
            assert (folded[clip, group] - stepped).abs().max() <= 1e-10
    torch.testing.assert_close(model(keys, residuals, "ycc"), folded.mean(dim=1))


@torch.no_grad()
def test_float32_flips_few_spikes():
    """One rounding flips a spike now and then; more than one in a thousand would be an error of ours."""
    model, (keys, residuals) = random_model(), clips()
    spikes = []
    for layer in model.modules():
        if isinstance(layer, LIF):
            layer.register_forward_hook(lambda _, __, fired: spikes.append(fired.bool().flatten()))
    model(keys, residuals, "rgb")
    single = torch.cat(spikes)
    spikes.clear()
    model.double()(keys, residuals, "rgb")
    assert (single != torch.cat(spikes)).double().mean() < 1e-3


@pytest.mark.parametrize("options", [{}, {"fusion": "additive", "snn": {"lif": LIFSettings(learns_tau=True)}}])
def test_gradients_reach_every_parameter(options):
    model = random_model(**options).train()
    model(*clips(), "ycc").square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_neurons_of_an_untrained_network_are_alive():
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=16).train()
    rates = []
    for layer in model.modules():
        if isinstance(layer, LIF):
            layer.register_forward_hook(lambda _, __, fired: rates.append(fired.mean().item()))
    keys, residuals = clips()
    events = torch.zeros_like(residuals)
    events[..., 20:32, 20:36] = residuals[..., 20:32, 20:36]  # something moves in one place, as in real clips
    model(keys, events, "ycc")
    assert len(rates) == 8
    assert all(0.003 < rate < 0.5 for rate in rates)


@pytest.mark.parametrize("given", [torch.float64, None])
def test_rgb_input_is_the_paper_s_to_the_last_digit(given):
    """(k - mean) / deviation and (x - k) / deviation on a scale of 0 to 1, from integers or from floats."""
    model = create_model("respike_tiny", num_classes=2).double()
    keys, residuals = clips()
    mean, deviation = (torch.tensor(figures, dtype=torch.float64).view(3, 1, 1) for figures in (MEAN, DEVIATION))
    seen_keys, seen_residuals = model.normalise(*(t.to(given) if given else t for t in (keys, residuals)), "rgb")
    torch.testing.assert_close(seen_keys, (keys.double() / 255 - mean) / deviation, rtol=0, atol=1e-15)
    torch.testing.assert_close(seen_residuals, residuals.double() / 255 / deviation, rtol=0, atol=1e-14)


def test_ycc_input_is_mapped_to_rgb_differences():
    model = create_model("respike_tiny", num_classes=2).double()
    keys, residuals = clips()
    matrix = torch.tensor(YCC_TO_RGB, dtype=torch.float64)
    rgb = torch.einsum("rc,bnschw->bnsrhw", matrix, residuals.double())
    _, seen = model.normalise(keys, residuals, "ycc")
    torch.testing.assert_close(seen, model.normalise(keys, rgb, "rgb")[1], rtol=0, atol=1e-13)


@torch.no_grad()
def test_each_branch_sees_its_own_input_only():
    keys, residuals = clips()
    for branches, sees_keys, sees_residuals in [
        ("hybrid", True, True),
        ("concat", True, True),
        ("ann", True, False),
        ("snn", False, True),
    ]:
        model = random_model(branches=branches)
        logits = model(keys, residuals, "ycc")
        assert logits.shape == (2, 5)
        assert torch.equal(logits, model(255 - keys, residuals, "ycc")) != sees_keys
        assert torch.equal(logits, model(keys, -residuals, "ycc")) != sees_residuals


def test_concat_is_the_hybrid_less_its_fusions():
    hybrid = random_model().state_dict()
    concat = random_model(branches="concat").state_dict()
    assert concat.keys() == {name for name in hybrid if not name.startswith("fusions.")}


@pytest.mark.parametrize(
    ("height", "width", "words"), [(112, 64, "for 112 take 96 or 128"), (64, 16, "for 16 take 32")]
)
def test_a_size_that_is_no_multiple_of_32_is_refused_with_the_nearest(height, width, words):
    keys, residuals = clips(num_clips=1, height=height, width=width)
    with pytest.raises(SettingError, match=words):
        create_model("respike_tiny", num_classes=2)(keys, residuals, "ycc")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda keys, residuals: (keys[0], residuals, "rgb"), r"keys are uint8 \[2, 3, 64, 64\]"),
        (lambda keys, residuals: (keys.short(), residuals, "rgb"), "keys are int16"),
        (lambda keys, residuals: (keys, residuals[:, :1], "rgb"), r"residuals are int16 \[2, 1, 3"),
        (lambda keys, residuals: (keys, residuals.byte(), "rgb"), "residuals are uint8"),
        (lambda keys, residuals: (keys, residuals[:, :, :0], "rgb"), "stride of 1"),
        (lambda keys, residuals: (keys, residuals, "yuv"), "choose from ycc, rgb"),
    ],
)
def test_input_that_does_not_fit_is_named(change, words):
    with pytest.raises(SettingError, match=words):
        create_model("respike_tiny", num_classes=2)(*change(*clips()))


def test_the_config_survives_json():
    config = create_model("respike_tiny", num_classes=2).config
    assert json.loads(json.dumps(config.to_json())) == config.to_json()
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.to_json()["snn"]["lif"]["threshold"] == 1.0


def test_a_config_from_before_an_option_was_added_has_its_default():
    config = create_model("respike_tiny", num_classes=2).config
    older = config.to_json()
    del older["fusion"], older["snn"]["lif"]["reset"], older["snn"]["lif"]["learns_tau"]
    assert ModelConfig.from_json(older) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda json: json.pop("num_classes"), "the field num_classes is missing"),
        (lambda json: json.update(depth=3), "the field depth is unknown"),
        (lambda json: json["snn"].update(channels=[32, "32", 64, 96]), r"the field snn.channels\[1\] is '32'"),
        (lambda json: json["snn"]["lif"].update(tau="4/3"), "the field snn.lif.tau is '4/3'"),
        (lambda json: json["snn"].update(channels=[32, 32, 64, 10**9]), r"the field snn.channels\[3\] is 1000000000"),
        (lambda json: json["backbone"].update(timm_name="hf-hub:some/one"), "timm has no network 'hf-hub:some/one'"),
        (lambda json: json.update(branches=True), "the field branches is True"),
    ],
)
def test_a_config_in_json_that_makes_no_network_is_refused_by_field(change, words):
    written = create_model("respike_tiny", num_classes=2).config.to_json()
    change(written)
    with pytest.raises(SettingError, match=words):
        ModelConfig.from_json(written)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"branches": "both"}, "choose from hybrid, ann, snn, concat"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"fusion_pools": (4, 2)}, "2 fusion pools for 4 scales"),
        ({"fusion_pools": (4, 2, 1, 2)}, "a pool of 2 at stride 32"),
        ({"fusion": "sum"}, "choose from faithful, additive"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(change, words):
    with pytest.raises(SettingError, match=words):
        dataclasses.replace(create_model("respike_tiny", num_classes=2).config, **change)


@torch.no_grad()
def test_a_scale_without_fusion_stays_as_it_is():
    model = random_model((0, 0, 0, 0))
    concat = random_model(branches="concat")
    model.load_state_dict(concat.state_dict())
    assert torch.equal(model(*clips(), "ycc"), concat(*clips(), "ycc"))
