"""Train config: what each setting refuses, and the image size of a network."""

import json

import pytest
from respike.common.errors import RespikeError, SettingError
from respike.zoo.train_config import TrainConfig

from tests.test_architecture import loaded_by


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("image_size", 0),
        ("seed", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -0.1),
        ("momentum", 1.0),
        ("warmup_share", 1.0),
        ("label_smoothing", -0.1),
        ("amp", "fp8"),
        ("lif_backend", "cupy"),
        ("max_grad_norm", 0.0),
        ("ema_decay", 1.0),
        ("crop_scale", (0.5, 0.2)),
        ("crop_scale", (0.0, 0.2)),
        ("crop", "random"),
        ("crop_sides", ()),
        ("crop_sides", (1.0, 1.0)),
        ("crop_sides", (0.5, 1.0)),
        ("crop_sides", (1.2, 1.0)),
        ("crop_sides", (1.0, 0.0)),
        ("crop_sides", (float("nan"),)),
        ("optimizer", "adamm"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SettingError, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(("size", "nearest"), [(65, "64 or 96"), (31, "32"), (-5, "32")])
def test_a_wrong_image_size_names_the_nearest_allowed_ones(size: int, nearest: str) -> None:
    with pytest.raises(SettingError, match=f"image_size is {size} .give a multiple of 32, such as {nearest}.$"):
        TrainConfig(image_size=size)


@pytest.mark.parametrize(("network", "size"), [("respike_tiny", 64), ("respike_r18", 224), ("respike", 224)])
def test_without_an_image_size_the_network_has_its_own(network: str, size: int) -> None:
    assert TrainConfig(epochs=3).for_network(network) == TrainConfig(epochs=3, image_size=size)
    assert TrainConfig(image_size=96).for_network(network).image_size == 96


def test_an_image_size_needs_a_network_that_exists() -> None:
    with pytest.raises(RespikeError, match="did you mean 'respike_tiny'"):
        TrainConfig().for_network("respike_tinny")
    with pytest.raises(SettingError, match="image_size is none"):
        _ = TrainConfig().resolved_image_size
    assert TrainConfig(image_size=96).resolved_image_size == 96


def test_a_mistyped_optimizer_names_only_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean adamw") as caught:
        TrainConfig(optimizer="adamww")
    assert len(caught.value.hint) < 80
    with pytest.raises(SettingError, match=r"choose from .*adamw.*sgd"):
        TrainConfig(optimizer="qqqqqq")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "momentum", "lamb"])
def test_optimizers_have_the_names_of_timm(optimizer: str) -> None:
    assert TrainConfig(optimizer=optimizer).optimizer == optimizer


def test_compiling_and_checkpointing_exclude_each_other() -> None:
    with pytest.raises(SettingError, match="do not go together"):
        TrainConfig(compile=True, gradient_checkpointing=True)


def test_the_settings_are_plain_json() -> None:
    config = TrainConfig(max_grad_norm=1.0)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_reading_a_recipe_loads_no_torch() -> None:
    code = "from respike.zoo.recipe import read_recipe; read_recipe('ucf101')"
    assert not {"torch", "timm", "tensorboard"} & loaded_by(code)
