"""Cards: those that come with respike are true; one that is not says in which field."""

import json
from pathlib import Path

import pytest
from respike.common.errors import CheckpointError, SettingError
from respike.zoo.checkpoint import verify_weights
from respike.zoo.models import model_config
from respike.zoo.publishing import zoo_table
from respike.zoo.recipe import read_recipe
from respike.zoo.weights import CARDS_FOLDER, CardScore, WeightCard, WeightFile, is_name, read_card, read_cards

CARDS = read_cards()
DOCUMENT = Path(__file__).parents[2] / "docs" / "zoo.md"
RECIPES = {"respike_r50.hmdb51": "hmdb51", "respike_r50.ucf101": "ucf101", "respike_r50.k400": "kinetics400"}


def test_the_table_of_the_document_is_made_of_the_cards():
    _, _, rest = DOCUMENT.read_text().partition("<!-- made by `respike zoo list --markdown` -->\n")
    assert rest.partition("<!-- end -->")[0].strip() == zoo_table(CARDS.values()).strip()


@pytest.mark.parametrize("name", CARDS)
def test_each_card_is_called_what_it_says_and_written_as_respike_writes_it(name):
    path = CARDS_FOLDER / f"{name}.json"
    assert path.read_text() == read_card(path).to_text()
    card = CARDS[name]
    named = model_config(card.architecture, num_classes=card.num_classes, branches=card.model["branches"])
    assert named.to_json() == card.model


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.has_weights])
def test_weights_in_the_package_are_those_of_their_cards(name):
    finding = verify_weights(CARDS[name])
    assert (finding.state, finding.problem) == ("in the package", "")


@pytest.mark.parametrize(("name", "recipe"), RECIPES.items())
def test_a_recipe_s_card_has_the_recipe_s_settings_and_no_score_of_ours(name, recipe):
    card = CARDS[name]
    assert not card.has_weights
    assert card.training == json.loads(json.dumps(read_recipe(recipe).training.to_json()))
    assert f"--recipe {recipe} " in card.command
    assert "without weights yet" in card.summary
    assert all(score.origin == "reported" for score in card.scores)


def card_with(**changes):
    return {**CARDS["respike_r50.k400"].to_json(), **changes}


FILE = {"name": "model.safetensors", "num_bytes": 1, "sha256": "0" * 64}
SCORE = {"metric": "top1", "value": 0.5, "of": "clips", "subset": "test", "origin": "reported", "by": "someone"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x"}, "the name '../x' is not arch.tag"),
        ({"name": "respike_tiny.safetensors"}, "is not arch.tag"),
        ({"files": [{**FILE, "name": "../model.safetensors"}]}, "the file name '../model.safetensors'"),
        ({"files": [{**FILE, "name": ".bashrc"}]}, "the file name '.bashrc'"),
        ({"files": [FILE]}, "name model.safetensors and model.json"),
        ({"files": [{**FILE, "sha256": "0" * 63}]}, "has 1 bytes, SHA-256 '000"),
        ({"files": [{**FILE, "num_bytes": 0}]}, "has 0 bytes"),
        ({"scores": [{**SCORE, "value": 70.1}]}, "give a fraction from 0 to 1"),
        ({"scores": [{**SCORE, "by": ""}]}, "does not say who reports it"),
        ({"scores": [{**SCORE, "origin": "measured here"}]}, "does not say the command"),
        ({"scores": [{**SCORE, "origin": "guessed"}]}, r"scores\[0\].origin is 'guessed'"),
        ({"data": 3}, "data is 3"),
        ({"code": "print()"}, "the field code is unknown"),
    ],
)
def test_a_card_that_does_not_fit_names_the_field(tmp_path, change, words):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card_with(**change)))
    with pytest.raises(CheckpointError, match=rf"card\.json is no weight card: .*{words}"):
        read_card(path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_a_card_that_is_no_json_is_named(tmp_path, text):
    path = tmp_path / "card.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"card\.json cannot be read as JSON"):
        read_card(path)


def test_a_name_is_arch_and_tag():
    assert [is_name(name) for name in ("respike_tiny.demo16", "best.safetensors", "runs/x.y", "best", "A.b")] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_scores_and_files_are_checked_when_made():
    with pytest.raises(SettingError):
        CardScore(**{**SCORE, "value": float("nan")})
    with pytest.raises(SettingError):
        WeightFile(**{**FILE, "name": "a/b"})
    assert WeightCard(**vars(CARDS["respike_r50.k400"])).num_bytes == 0
