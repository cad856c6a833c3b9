"""Models: the networks by name, with the parameters they are known by."""

import pytest
import timm
import torch
from respike.common.errors import RespikeError, SettingError
from respike.zoo.factory import create_model
from respike.zoo.models import ModelOptions, default_image_size, list_models, model_config, options_of
from respike.zoo.nn.backbone import backbone_of
from respike.zoo.nn.lif import LIF

from tests.zoo.batches import make_batch


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_sizes_are_met_to_the_parameter():
    small = create_model("respike_r18", num_classes=101)
    assert num_parameters(small) == 30_132_773
    assert num_parameters(small.ann) == 11_176_512
    assert round(num_parameters(small.fusions) / 1e6, 2) == 7.68
    large = create_model("respike_r50", num_classes=101)
    assert num_parameters(large) == 44_708_389
    assert num_parameters(large.ann) == 23_508_032
    assert round(num_parameters(large.fusions) / 1e6, 2) == 9.77


def scaled_spreads(model, fan):
    """Return the deviation of each spiking convolution's weights times the root of its `fan`."""
    convolutions = [module for module in model.snn.modules() if isinstance(module, torch.nn.Conv2d)]
    return [float(each.weight.std() * fan(each.weight) ** 0.5) for each in convolutions]


@pytest.mark.parametrize("name", ["respike_r18", "respike_r50"])
def test_published_networks_start_from_torch_s_default_weights(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, branches="snn")
    spreads = scaled_spreads(model, lambda weight: weight[0].numel())
    # uniform within 1 / √fan-in
    assert spreads == pytest.approx([3**-0.5] * len(spreads), rel=0.05)


@pytest.mark.parametrize("options", [None, ModelOptions(snn_init="kaiming")])
def test_kaiming_weights_are_an_option_and_respike_tiny_s_own(options):
    torch.manual_seed(0)
    model = create_model("respike" if options else "respike_tiny", num_classes=2, branches="snn", options=options)
    spreads = scaled_spreads(model, lambda weight: weight[:, 0].numel())
    assert spreads == pytest.approx([2**0.5] * len(spreads), rel=0.1)


def test_a_checkpoint_does_not_depend_on_the_first_weights():
    configs = [
        model_config("respike", num_classes=2, options=ModelOptions(snn_init=each)) for each in ("torch", "kaiming")
    ]
    assert configs[0] == configs[1]


def test_the_tiny_network_is_tiny():
    assert num_parameters(create_model("respike_tiny", num_classes=16)) <= 1_500_000


def test_the_list_is_what_can_be_made():
    assert list_models() == [
        "respike_r18",
        "respike_r50",
        "respike_mobile",
        "respike_convnext",
        "respike_tiny",
        "respike",
    ]


def test_each_network_declares_its_image_size():
    assert default_image_size("respike_tiny") == 64
    assert {default_image_size(name) for name in list_models()} == {64, 224}
    with pytest.raises(RespikeError, match="did you mean 'respike_tiny'"):
        default_image_size("respike_tinny")


def test_the_mobile_network_is_small_and_the_convnext_one_as_large_as_respike_r50():
    assert num_parameters(create_model("respike_mobile", num_classes=101)) == 6_434_725
    assert num_parameters(create_model("respike_convnext", num_classes=101)) == 47_148_885


def test_without_options_the_open_network_is_the_published_one():
    ours, published = (create_model(name, num_classes=101).state_dict() for name in ("respike", "respike_r18"))
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in published.items()
    }


# a network of timm's for tests, of strides 4, 8, 16 and 32
SMALL = {"backbone": "test_convnext", "snn_width": 32, "fusion_scales": (16, 32), "snn_init": "kaiming"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        pytest.param({"backbone": "test_resnet"}, marks=pytest.mark.slow),
        pytest.param({"snn_init": "torch"}, marks=pytest.mark.slow),
        pytest.param({"snn_depth": 34}, marks=pytest.mark.slow),
        pytest.param({"snn_width": 64}, marks=pytest.mark.slow),
        {"neuron": "plif", "tau": 2.0},
        pytest.param({"reset": "soft"}, marks=pytest.mark.slow),
        pytest.param({"surrogate": "sigmoid"}, marks=pytest.mark.slow),
        pytest.param({"surrogate": "triangle"}, marks=pytest.mark.slow),
        pytest.param({"surrogate": "rectangle"}, marks=pytest.mark.slow),
        {"fusion": "additive", "fusion_scales": (4, 8, 16, 32)},
        pytest.param({"fusion": "faithful", "fusion_scales": (8,)}, marks=pytest.mark.slow),
        {"fusion": "none"},
    ],
    ids=str,
)
def test_a_network_of_each_option_learns(change):
    torch.manual_seed(0)
    model = create_model("respike", num_classes=3, options=ModelOptions(**SMALL | change)).train()
    batch = make_batch([0, 1, 2, 0, 1, 2], size=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        logits = model(batch.keys, batch.residuals, batch.color)
        loss = torch.nn.functional.cross_entropy(logits, batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_options_build_what_they_say():
    options = ModelOptions(backbone="test_resnet", snn_depth=34, snn_width=32, neuron="plif", tau=2.0, fusion="none")
    model = create_model("respike", num_classes=3, options=options)
    assert [len(stage.blocks) for stage in model.snn.stages] == [3, 4, 6, 3]
    assert model.config.branches == "concat"
    assert all(layer.tau == pytest.approx(2.0) for layer in model.modules() if isinstance(layer, LIF))
    assert create_model("respike", num_classes=3, backbone="test_resnet").config.backbone.timm_name == "test_resnet"


@pytest.mark.parametrize(
    "options",
    [
        ModelOptions(),
        ModelOptions(snn_depth=34, snn_width=32, neuron="plif", tau=2.0, reset="soft", surrogate="sigmoid"),
        ModelOptions(backbone="convnext_tiny.fb_in1k", surrogate_alpha=3.0, fusion="additive", fusion_scales=(8, 32)),
    ],
)
def test_a_config_tells_the_options_it_was_put_together_of(options):
    config = model_config("respike", num_classes=3, options=options)
    told = options_of(config)
    assert model_config("respike", num_classes=3, options=told) == config
    assert (told.neuron, told.fusion_scales) == (options.neuron, options.fusion_scales)


def test_a_fixed_network_has_no_options():
    assert options_of(model_config("respike_r18", num_classes=3)) is None


def test_a_backbone_keeps_the_tag_of_its_weights_or_gets_timm_s_own():
    assert backbone_of("convnext_tiny.fb_in1k").imagenet_tag == "fb_in1k"
    assert backbone_of("resnet18").imagenet_tag == timm.get_pretrained_cfg("resnet18").tag
    with pytest.raises(SettingError, match=r"no weights 'in1' for convnext_tiny.*fb_in1k"):
        backbone_of("convnext_tiny.in1")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("respike_r18", {}, "respike_r18 is fixed and takes no options"),
        ("respike", {"snn_depth": 50}, "choose from 18, 34"),
        ("respike", {"neuron": "alif"}, "choose from lif, plif"),
        ("respike", {"reset": "none"}, "choose from hard, soft"),
        ("respike", {"surrogate": "step"}, "choose from arctan"),
        ("respike", {"fusion": "improved"}, "choose from faithful, additive, none"),
        ("respike", {"fusion_scales": (2,)}, "choose from 4, 8, 16, 32"),
        ("respike", {"fusion_scales": ()}, "faithful fusion at no scale"),
        ("respike", {"snn_width": 48}, "48 channels, allowed are multiples of 32"),
        ("respike", {"backbone": "resnet19"}, "did you mean"),
        ("respike", {"backbone": "vit_tiny_patch16_224"}, "strides"),
    ],
)
def test_options_that_make_no_network_are_named(name, options, words):
    with pytest.raises(RespikeError, match=words):
        create_model(name, num_classes=2, options=ModelOptions(**options))


def test_the_number_of_classes_may_be_left_out_only_with_weights():
    with pytest.raises(SettingError, match="without a number of classes"):
        create_model("respike_tiny")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(RespikeError, match="did you mean 'respike_r18'"):
        create_model("respike_r19", num_classes=2)
