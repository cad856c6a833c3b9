"""Settings of a training, each refused by its name."""

import json

import pytest
from respike.common.errors import SettingError
from respike.zoo.train_config import TrainConfig


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
def test_a_value_out_of_range_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(SettingError, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(("size", "nearest"), [(65, "64 or 96"), (31, "32"), (-5, "32")])
def test_a_size_that_the_network_cannot_halve_names_the_nearest_that_it_can(size: int, nearest: str) -> None:
    with pytest.raises(SettingError, match=f"image_size is {size} .give a multiple of 32, such as {nearest}.$"):
        TrainConfig(image_size=size)


def test_a_mistyped_optimizer_names_the_nearest_alone() -> None:
    with pytest.raises(SettingError, match="did you mean adamw") as caught:
        TrainConfig(optimizer="adamww")
    assert len(caught.value.hint) < 80
    with pytest.raises(SettingError, match=r"choose from .*adamw.*sgd"):
        TrainConfig(optimizer="qqqqqq")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "momentum", "lamb"])
def test_optimizers_go_by_timms_names(optimizer: str) -> None:
    assert TrainConfig(optimizer=optimizer).optimizer == optimizer


def test_the_settings_are_plain_json() -> None:
    config = TrainConfig(max_grad_norm=1.0)
    assert json.loads(json.dumps(config.to_json())) == config.to_json()
    assert config.to_json()["max_grad_norm"] == 1.0
