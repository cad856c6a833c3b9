"""Wording promises: one thing is told in the singular, any other number in the plural."""

import pytest
from respike.wording import agree, counted, counted_of, name_some, plural, singular


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
