"""`respike recipes`: what there is, and what goes before it."""

import json

import pytest
from respike.zoo.recipe import list_recipes, read_recipe


def test_every_recipe_is_listed_with_what_it_is_for(call) -> None:
    answer = call("recipes")
    assert answer.code == 0
    assert all(name in answer.out and read_recipe(name).title in answer.out for name in list_recipes())
    assert list(json.loads(call("recipes", "--json").out)) == list_recipes()


def test_a_recipe_is_shown_with_the_command_for_its_shards(call) -> None:
    answer = call("recipes", "hmdb51")
    assert "respike prepare hmdb51 --stride 4 --split 3" in answer.out
    assert "momentum" in answer.out
    assert "respike train --recipe hmdb51" in answer.out
    # what stands at its default is not said
    assert "label_smoothing" not in answer.out
    told = json.loads(call("recipes", "hmdb51", "--json").out)
    assert told["training"] == read_recipe("hmdb51").training.to_json()


def test_an_unknown_recipe_is_one_line_that_lists_them(call) -> None:
    answer = call("recipes", "imagenet")
    assert (answer.code, answer.out) == (1, "")
    assert "choose from" in answer.err


def test_the_notes_of_a_recipe_stand_in_lines_of_their_own(call):
    answer = call("recipes", "hmdb51")
    assert "\\n" not in answer.out
    assert max(map(len, answer.out.splitlines())) <= 120


@pytest.mark.parametrize(("name", "meant"), [("lrr", "learning_rate"), ("wd", "weight_decay"), ("epoch", "epochs")])
def test_a_setting_by_another_name_is_told_its_own(call, name, meant):
    answer = call("train", "--set", f"{name}=1")
    assert answer.code == 1
    assert f"did you mean {meant!r}?" in answer.err
