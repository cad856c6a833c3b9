"""Wording promises: one thing is told in the singular, any other number in the plural."""

import pytest
from respike.common.text import agree, counted, counted_of, did_you_mean, name_some, plural, singular, suggest


@pytest.mark.parametrize(
    ("number", "noun", "told"),
    [(1, "shard", "1 shard"), (0, "epoch", "0 epochs"), (2, "class", "2 classes"), (1234, "batch", "1,234 batches")],
)
def test_a_number_of_things_is_told_in_its_number(number, noun, told):
    assert counted(number, noun) == told


def test_some_of_a_number_take_the_number_of_all():
    assert counted_of(1, 12, "video") == "1 of 12 videos"
    assert counted_of(1, 1, "video") == "1 of 1 video"


def test_a_verb_goes_with_its_number():
    assert [agree(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize("noun", ["video", "class", "batch", "image", "epoch", "branch", "key frame", "shard"])
def test_the_plural_leads_back_to_its_noun(noun):
    assert singular(plural(noun)) == noun


def test_many_names_are_cut_and_counted():
    assert name_some("abc", most=3) == "a, b, c"
    assert name_some("abcdef", most=3) == "a, b, c and 3 more"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("respike_r81", "did you mean 'respike_r18'? "),
        ("demo16", "did you mean 'respike_tiny.demo16'? "),
        # a part of everything says nothing
        ("r", ""),
        ("nope", ""),
    ],
)
def test_a_mistyped_name_asks_for_the_nearest_or_the_one_it_is_a_part_of(name, told):
    choices = ("respike_tiny.demo16", "respike_r18", "respike_r50")
    assert did_you_mean(name, choices) == told
    assert suggest(name, choices) == f"{told}choose from respike_tiny.demo16, respike_r18, respike_r50"
