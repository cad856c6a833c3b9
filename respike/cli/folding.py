"""Folding: text broken between words, names and paths at their joints, words only where nothing else fits."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

# what a column of words is folded to at most, so that names stay readable
LEAST_WORDS = 12
# columns of a terminal after each of a table's
GAP = 2
# before a space; after a dot, slash, comma or hyphen within a name or path, never within a number or at its head
_JOINT = re.compile(r"(?<=\S)(?=\s)|(?<=\w[./,-])(?=[^\W\d])")


def fold(text: str, width: int, measure: Callable[[str], int] = len) -> str:
    """`text` in lines of at most `width` columns, where `measure` gives how many a text takes."""
    lines = [""]
    for piece in _JOINT.split(text):
        rest = piece
        if lines[-1] and measure(lines[-1] + rest) > width:
            lines.append("")
            rest = rest.lstrip()
        while measure(rest) > width:
            num_fitting = max(1, sum(measure(rest[: end + 1]) <= width for end in range(len(rest))))
            lines[-1] = rest[:num_fitting]
            lines.append("")
            rest = rest[num_fitting:]
        lines[-1] += rest
    return "\n".join(lines)


@dataclass(frozen=True)
class Column:
    """A column of a table: how wide it is, and where its text stands, right for numbers, which never fold."""

    width: int
    justify: Literal["left", "right"]


def lay_out(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, measure: Callable[[str], int] = len
) -> list[Column] | None:
    """How a table fits into `width` columns without a broken word or number; None where it does not."""
    widest, least = [], []
    justified: list[Literal["left", "right"]] = []
    for number, heading in enumerate(headings):
        cells = [row[number] for row in rows]
        is_number = number > 0 and all(cell[:1].isdigit() or cell in ("", "–") for cell in cells)
        widest.append(max(map(measure, (heading, *cells))))
        pieces = (longest_piece(text, measure) for text in (heading, *cells))
        least.append(widest[-1] if is_number else min(widest[-1], max(LEAST_WORDS, *pieces)))
        justified.append("right" if is_number else "left")
    widths = share_width(widest, least, width - GAP * len(headings))
    return None if widths is None else [Column(*each) for each in zip(widths, justified, strict=True)]


def longest_piece(text: str, measure: Callable[[str], int] = len) -> int:
    """The least width that breaks no word of `text`."""
    return max(map(measure, _JOINT.split(text)))


def share_width(widest: Sequence[int], least: Sequence[int], available: int) -> list[int] | None:
    """The widths of columns in `available`, the widest giving way first; None where even the least do not fit."""
    widths = list(widest)
    while sum(widths) > available:
        giving = [number for number, width in enumerate(widths) if width > least[number]]
        if not giving:
            return None
        widths[max(giving, key=widths.__getitem__)] -= 1
    return widths
