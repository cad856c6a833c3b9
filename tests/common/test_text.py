"""Text: counts, cut lists, suggestions, sizes, times and rates."""

import pytest
from respike.common.errors import RespikeError
from respike.common.text import (
    counted,
    did_you_mean,
    format_bytes,
    format_count,
    format_rate,
    format_seconds,
    format_share,
    name_some,
    pick,
    suggest,
)


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "shard", "1 shard"),
        (0, "epoch", "0 epochs"),
        (2, "class", "2 classes"),
        (1234, "batch", "1,234 batches"),
        (3, "box", "3 boxes"),
    ],
)
def test_a_count_has_its_noun_in_singular_or_plural(number, noun, text):
    assert counted(number, noun) == text


def test_a_long_list_of_names_is_cut():
    assert name_some("abc", most=3) == "a, b, c"
    assert name_some("abcdef", most=3) == "a, b, c and 3 more"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("respike_r81", "did you mean 'respike_r18'? "),
        ("demo16", "did you mean 'respike_tiny.demo16'? "),
        # one letter is a part of every name
        ("r", ""),
        ("nope", ""),
    ],
)
def test_a_mistyped_name_gets_the_nearest_suggestion(name, text):
    choices = ("respike_tiny.demo16", "respike_r18", "respike_r50")
    assert did_you_mean(name, choices) == text
    assert suggest(name, choices) == f"{text}choose from respike_tiny.demo16, respike_r18, respike_r50"


def test_pick_returns_the_entry_or_lists_the_names():
    table = {"respike_r18": 18, "respike_r50": 50}
    assert pick(table, "respike_r18", "model") == 18
    with pytest.raises(
        RespikeError, match=r"there is no model 'respike_r5' \(did you mean 'respike_r50'\? choose from"
    ):
        pick(table, "respike_r5", "model")


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_960, "1.0 MB"), (2e12, "2.0 TB")]
)
def test_sizes_are_in_powers_of_a_thousand(num_bytes, text):
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.2, "4.2 s"), (42, "42 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_times_are_in_the_units_of_a_clock(seconds, text):
    assert format_seconds(seconds) == text


def test_counts_and_shares_are_short():
    assert format_count(3, 12, "videos") == "3 of 12"
    assert format_count(1_500_000, 2e9, "bytes") == "1.5 MB of 2.0 GB"
    assert format_count(3, None, "videos") == "3"
    assert format_share(0.123) == "12.3%"


@pytest.mark.parametrize(
    ("per_second", "unit", "text"),
    [
        (12.34, "videos", "12.3 videos/s"),
        (1_500_000, "bytes", "1.5 MB/s"),
        (0.25, "videos", "4.0 s/video"),
        (0.25, "batches", "4.0 s/batch"),
        (0.25, "classes", "4.0 s/class"),
        (0.25, "epochs", "4.0 s/epoch"),
        (0, "videos", "0.0 videos/s"),
    ],
)
def test_a_slow_rate_is_given_as_time_per_unit(per_second, unit, text):
    assert format_rate(per_second, unit) == text
