"""Folding: where text may break, and which columns give way."""

import contextlib
import re

import pytest
from respike.cli.console import fold, longest_piece, share_width
from respike.cli.main import main

NARROW = 60


def lines_of(terminal, arguments: tuple[str, ...], columns: int) -> list[str]:
    """What a command prints on a terminal of so many columns."""
    screen = terminal(columns, NO_COLOR="1", TERM="dumb")
    # the doctor exits 1 where something is missing
    with contextlib.suppress(SystemExit):
        main(arguments)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize(
    "arguments",
    [("doctor",), ("energy", "respike_tiny", "--compare", "none", "--layers"), ("zoo", "list"), ("recipes",)],
    ids=lambda each: each[0],
)
def test_sixty_columns_break_no_word_that_fits(terminal, arguments):
    wide, narrow = (lines_of(terminal, arguments, columns) for columns in (1000, NARROW))
    assert max(map(len, narrow)) <= NARROW
    # times and free bytes differ from one call to the next; whole words do not come apart
    known = {piece for line in wide for word in line.split() for piece in re.split(r"(?<=[./,-])", word)}
    broken = {word for line in narrow for word in line.split() if not set(re.split(r"(?<=[./,-])", word)) <= known}
    assert not {word for word in broken if not re.search(r"\d", word)}


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("two words", 9, ["two words"]),
        ("two words", 8, ["two", "words"]),
        ("  set in", 6, ["  set", "in"]),
        ("snn.stages.0.blocks.1", 14, ["snn.stages.0.", "blocks.1"]),
        ("/usr/share/lib", 10, ["/usr/", "share/lib"]),
        # neither within a number nor after the dashes of an option
        ("at 2.14.0", 6, ["at", "2.14.0"]),
        ("with --layers", 8, ["with", "--layers"]),
        # what has no joint breaks where it must
        ("abcdefgh ij", 3, ["abc", "def", "gh", "ij"]),
        ("", 5, [""]),
    ],
)
def test_text_breaks_at_its_joints(text, width, lines):
    assert fold(text, width).split("\n") == lines


def test_letters_that_take_two_columns_are_counted_so():
    assert fold("猫猫猫", 4, lambda text: 2 * len(text)).split("\n") == ["猫猫", "猫"]


def test_the_longest_piece_is_what_a_column_needs():
    assert longest_piece("snn.stages.0.blocks") == len("stages.0.")


def test_the_widest_column_gives_way_down_to_its_least():
    assert share_width([10, 30, 5], [4, 12, 5], 40) == [10, 25, 5]
    assert share_width([10, 30, 5], [4, 12, 5], 21) == [4, 12, 5]
    assert share_width([10, 30, 5], [4, 12, 5], 20) is None
