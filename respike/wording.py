"""Wording: counts and names within sentences, in the singular where there is one. For every message and report."""

import difflib
from collections.abc import Iterable

# the endings after which a plural takes a further syllable, and a noun whose own sounds otherwise
_HISSING, _HARD = ("s", "x", "ch", "sh"), ("epoch",)
# a shorter piece of a name is in too many
_LEAST_PART = 3


def counted(number: int, noun: str) -> str:
    """A number of things: `1 video`, `0 videos`, `1,234 classes`."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def counted_of(number: int, total: int, noun: str) -> str:
    """Some of a number of things: `1 of 12 videos`, `1 of 1 video`."""
    return f"{number:,} of {counted(total, noun)}"


def agree(number: int, one: str, many: str) -> str:
    """The verb or pronoun that goes with a number of things: `one` with 1, else `many`."""
    return one if number == 1 else many


def plural(noun: str) -> str:
    """The plural of a noun that forms it by the rule: `videos`, `classes`, `batches`."""
    return f"{noun}es" if noun.endswith(_HISSING) and not noun.endswith(_HARD) else f"{noun}s"


def singular(nouns: str) -> str:
    """The noun that `plural` made `nouns` of."""
    stem = nouns.removesuffix("es")
    return stem if stem != nouns and stem.endswith(_HISSING) else nouns.removesuffix("s")


def name_some(names: Iterable[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`did you mean 'x'? ` of the nearest choice, or the first that `name` is a part of; empty where there is none."""
    listed = list(choices)
    parts = [each for each in listed if name in each] if len(name) >= _LEAST_PART else []
    near = difflib.get_close_matches(name, listed, n=1) or parts
    return f"did you mean {near[0]!r}? " if near else ""


def suggest(name: str, choices: Iterable[str]) -> str:
    """What to do where `name` is none of the choices: the nearest of them, then all."""
    listed = list(choices)
    return f"{did_you_mean(name, listed)}choose from {', '.join(listed)}"
