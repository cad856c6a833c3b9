"""Wording promises: one thing is told in the singular, any other number in the plural."""

import pytest
from respike.common.text import (
    agree,
    counted,
    counted_of,
    did_you_mean,
    format_bytes,
    format_rate,
    format_seconds,
    name_some,
    plural,
    singular,
    suggest,
)


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


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1500, "1.5 kB"),
        (999_960, "1.0 MB"),
        (2e9, "2.0 GB"),
        (5e12, "5.0 TB"),
        (3e15, "3000.0 TB"),
    ],
)
def test_sizes_read_as_people_write_them(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_as_people_write_them(seconds, text):
    assert format_seconds(seconds) == text


def test_slow_work_is_told_in_seconds_a_unit():
    assert format_rate(12.34, "videos") == "12.3 videos/s"
    assert format_rate(0.25, "videos") == "4.0 s/video"
    assert format_rate(0.5, "batches") == "2.0 s/batch"
    assert format_rate(0, "videos") == "0.0 videos/s"
    assert format_rate(1_500_000, "bytes") == "1.5 MB/s"
