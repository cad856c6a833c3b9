"""Recipes: every one loads, any setting can be changed, and an unknown key is named."""

from pathlib import Path

import pytest
from respike.common.errors import RespikeError, SettingError
from respike.zoo.models import list_models
from respike.zoo.recipe import Recipe, list_recipes, merge_settings, parse_assignment, read_recipe
from respike.zoo.train_config import TrainConfig


@pytest.mark.parametrize("name", ["demo16", "demo16hard", "hmdb51", "kinetics400", "modern", "ucf101"])
def test_every_recipe_loads_and_has_a_title_and_notes(name: str) -> None:
    assert name in list_recipes()
    recipe = read_recipe(name)
    assert recipe.title
    assert recipe.notes
    assert recipe.prepare
    assert recipe.network in list_models()


@pytest.mark.parametrize(
    ("name", "batch_size", "stride"), [("ucf101", 32, 4), ("hmdb51", 32, 4), ("kinetics400", 16, 2)]
)
def test_the_published_settings_are_the_published_ones(name: str, batch_size: int, stride: int) -> None:
    recipe = read_recipe(name)
    training = recipe.training
    assert (recipe.network, recipe.init_backbone) == ("respike_r50", "imagenet")
    assert (training.optimizer, training.momentum, training.weight_decay) == ("momentum", 0.9, 1e-4)
    assert (training.learning_rate, training.schedule, training.warmup_share) == (1e-4, "cosine", 0.0)
    assert (training.epochs, training.batch_size, training.image_size) == (100, batch_size, 224)
    assert training.amp == "fp16"
    assert training.epoch_clips == (1 if name == "kinetics400" else "all")
    assert all(f"--stride {stride}" in line and name in line for line in recipe.prepare)
    assert len(recipe.prepare) == (1 if name == "kinetics400" else 3)


def test_a_recipe_written_out_reads_back_the_same(tmp_path: Path) -> None:
    for name in list_recipes():
        recipe = read_recipe(name).override({"title": 'a "title" θ\nof two lines', "ema_decay": None})
        (tmp_path / f"{name}.toml").write_text(recipe.to_toml(), encoding="utf-8")
        assert read_recipe(tmp_path / f"{name}.toml") == recipe


def test_any_setting_can_be_overridden() -> None:
    recipe = Recipe().override({"epochs": 3, "network": "respike_tiny", "crop_scale": [0.5, 1], "mixup_alpha": 1})
    assert (recipe.training.epochs, recipe.network) == (3, "respike_tiny")
    assert (recipe.training.crop_scale, recipe.training.mixup_alpha) == ((0.5, 1.0), 1.0)
    assert recipe.override({"mixup_alpha": "none"}).training.mixup_alpha is None
    assert [recipe.override({"epoch_clips": each}).training.epoch_clips for each in (2, "all")] == [2, "all"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fusion": 5}, "fusion is 5 .choose from faithful, additive, none"),
        ({"learning_rat": 1.0}, "did you mean 'learning_rate'"),
        ({"qqq": 1.0}, "choose from .*learning_rate"),
        ({"epochs": 1.5}, "epochs is 1.5.*a whole number"),
        ({"epochs": True}, "epochs is True"),
        ({"flip": 1}, "flip is 1.*true or false"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'.*a number"),
        ({"crop_scale": [0.5]}, "crop_scale"),
        ({"amp": "fp8"}, "amp is 'fp8'.*bf16"),
        ({"branches": "both"}, "branches is 'both'.*hybrid"),
        ({"epochs": "none"}, "epochs is 'none'"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"epoch_clips": "some"}, "epoch_clips is 'some'.*give a whole number from 1 or all"),
        ({"epoch_clips": 0}, "epoch_clips is 0"),
        ({"epoch_clips": 1.5}, "epoch_clips is 1.5"),
    ],
)
def test_a_wrong_value_or_name_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Recipe().override(values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training]\nepoch = 1", "no setting 'epoch' in .training.*did you mean 'epochs'"),
        ("networks = 'a'", "no setting 'networks' above .training.*did you mean 'network'"),
        ("epochs = 1", r"setting 'epochs' is above \[training\].*belongs in \[training\]"),
        ("epochs = 1\n[training]\nflip = true", r"setting 'epochs' is above \[training\].*belongs in \[training\]"),
        ("[training]\nnetwork = 'a'", r"setting 'network' is in \[training\].*belongs above \[training\]"),
        ("[training]\nbackbone = 'resnet18'", r"setting 'backbone' is in \[training\].*belongs in \[options\]"),
        ("training = 1", "write it as a table"),
        ("[training", "cannot read the recipe"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RespikeError, match=words) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nepochs = 7\n", encoding="utf-8-sig")
    assert read_recipe(path).training.epochs == 7


def test_one_setting_with_two_values_is_refused() -> None:
    assert merge_settings([("learning_rate", 0.1), ("epochs", 3), ("learning_rate", 0.1)]) == {
        "learning_rate": 0.1,
        "epochs": 3,
    }
    with pytest.raises(SettingError, match=r"learning_rate is given twice, as 0\.1 and as 0\.2 .give it once"):
        merge_settings([("learning_rate", 0.1), ("learning_rate", 0.2)])


def test_a_name_that_is_no_recipe_lists_them() -> None:
    with pytest.raises(RespikeError, match=r"no recipe 'ucf'.*demo16, demo16hard, hmdb51"):
        read_recipe("ucf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=3", ("epochs", 3)),
        ("flip = false", ("flip", False)),
        ("amp=bf16", ("amp", "bf16")),
        ("crop_scale=[0.5, 1.0]", ("crop_scale", [0.5, 1.0])),
        ("title=a=b", ("title", "a=b")),
    ],
)
def test_assignments_take_toml_values_or_plain_text(text: str, expected: tuple[str, object]) -> None:
    assert parse_assignment(text) == expected


def test_the_defaults_are_those_of_the_settings() -> None:
    assert Recipe().training == TrainConfig()


def test_options_of_the_network_read_back_the_same(tmp_path: Path) -> None:
    values = {"network": "respike", "backbone": "convnext_tiny", "fusion": "additive", "fusion_scales": [8, 16]}
    recipe = Recipe().override(values)
    assert recipe.given_options is not None
    assert recipe.given_options.fusion_scales == (8, 16)
    path = tmp_path / "own.toml"
    path.write_text(recipe.to_toml())
    assert "[options]" in path.read_text()
    assert read_recipe(path) == recipe
    assert Recipe().given_options is None
    assert "[options]" not in Recipe().to_toml()
    path.write_text('[options]\nbackbon = "resnet18"\n')
    with pytest.raises(SettingError, match=r"no setting 'backbon' in \[options\] .*did you mean 'backbone'"):
        read_recipe(path)
    with pytest.raises(SettingError, match="choose from faithful, additive, none"):
        Recipe().override({"fusion": "improved"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.5", ("learning_rate", 0.5)),
        ("model=respike_tiny", ("network", "respike_tiny")),
        ("mixup=1", ("mixup_alpha", 1)),
    ],
)
def test_an_option_name_stands_for_its_setting(text: str, expected: tuple[str, object]) -> None:
    assert parse_assignment(text) == expected


def test_without_an_image_size_a_recipe_has_its_network_s(tmp_path: Path) -> None:
    def size(recipe: Recipe) -> int:
        return recipe.resolve().training.resolved_image_size

    assert (size(Recipe()), size(Recipe().override({"network": "respike_tiny"}))) == (224, 64)
    # a size that is set stays, in a recipe or in an assignment
    assert size(read_recipe("demo16")) == 32
    assert size(read_recipe("ucf101").override({"network": "respike_tiny"})) == 224
    assert size(Recipe().override({"network": "respike_tiny", "image_size": 96})) == 96
    (tmp_path / "mine.toml").write_text(Recipe().override({"network": "respike_tiny"}).to_toml())
    assert size(read_recipe(tmp_path / "mine.toml")) == 64
