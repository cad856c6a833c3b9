"""Backbone: any timm network with four strides; ImageNet weights from the cache, or one clear line."""

import huggingface_hub
import pytest
import timm
import torch
from respike.common.errors import RespikeError, SettingError
from respike.zoo.factory import create_model
from respike.zoo.nn.backbone import BackboneSettings, create_backbone, key_maps
from safetensors.torch import save_file


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A Hugging Face cache of our own, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("name", ["convnext_atto", "mambaout_femto", "regnetx_002"])
def test_other_networks_give_four_maps_channels_first(name):
    network, channels = create_backbone(BackboneSettings(timm_name=name))
    with torch.no_grad():
        maps = key_maps(network, torch.zeros(1, 3, 64, 96))
    assert [tuple(found.shape) for found in maps] == [
        (1, width, 64 // stride, 96 // stride) for width, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_a_network_of_other_strides_is_refused():
    with pytest.raises(SettingError, match=r"strides \(16, 16, 16, 16\), needed are \(4, 8, 16, 32\)"):
        create_backbone(BackboneSettings(timm_name="vit_tiny_patch16_224"))


def test_a_network_for_one_size_alone_says_so():
    network, _ = create_backbone(BackboneSettings(timm_name="swin_tiny_patch4_window7_224"))
    with torch.no_grad(), pytest.raises(SettingError, match="224"):
        key_maps(network, torch.zeros(1, 3, 64, 64))


def test_imagenet_weights_are_taken_from_the_cache_without_a_network(empty_cache):
    weights = timm.create_model("resnet18", pretrained=False).state_dict()
    snapshot = empty_cache / "models--timm--resnet18.tv_in1k" / "snapshots" / "0000"
    snapshot.mkdir(parents=True)
    save_file(weights, snapshot / "model.safetensors")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0000")
    model = create_model("respike_r18", num_classes=2, backbone_weights="imagenet")
    name = "layer4.1.conv2.weight"
    assert torch.equal(model.ann.state_dict()[name], weights[name])


def test_no_network_and_no_cache_is_one_line_that_says_what_to_do(empty_cache):
    with pytest.raises(RespikeError, match=r"cannot fetch the ImageNet weights resnet50\.tv2_in1k") as caught:
        create_model("respike_r50", num_classes=2, backbone_weights="imagenet")
    assert "\n" not in str(caught.value)
    assert "backbone_weights none" in caught.value.hint


def test_imagenet_weights_that_do_not_exist_are_refused():
    with pytest.raises(SettingError, match="no ImageNet weights for the backbone 'resnet10t'"):
        create_model("respike_tiny", num_classes=2, backbone_weights="imagenet")


def test_an_unknown_kind_of_weights_lists_the_choices():
    with pytest.raises(SettingError, match="choose from none, imagenet"):
        create_model("respike_tiny", num_classes=2, backbone_weights="imagnet")
