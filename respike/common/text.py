"""Text: counts, names, suggestions, sizes and times in messages."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from respike.common.errors import RespikeError

T = TypeVar("T")
_ENDINGS_WITH_ES = ("s", "x", "ch", "sh")
# a shorter part of a name is in too many names
_MIN_PART_LENGTH = 3


def counted(number: int, noun: str) -> str:
    """A number of things: `1 video`, `0 videos`, `1,234 classes`."""
    # the ch of an epoch is a k
    ending = "es" if noun.endswith(_ENDINGS_WITH_ES) and not noun.endswith("epoch") else "s"
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{ending}"


def name_some(names: Iterable[str], most: int = 5) -> str:
    """The first `most` names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`did you mean 'x'? ` with the nearest choice, or the first that contains `name`; empty if there is none."""
    listed = list(choices)
    containing = [each for each in listed if name in each] if len(name) >= _MIN_PART_LENGTH else []
    near = difflib.get_close_matches(name, listed, n=1) or containing
    return f"did you mean {near[0]!r}? " if near else ""


def suggest(name: str, choices: Iterable[str]) -> str:
    """The hint for a `name` that is none of the choices: the nearest choice, then all of them."""
    listed = list(choices)
    return f"{did_you_mean(name, listed)}choose from {', '.join(listed)}"


def pick(table: Mapping[str, T], name: str, kind: str) -> T:
    """Return the entry of `table` called `name`. Raises RespikeError that suggests the nearest name and lists all."""
    if name not in table:
        raise RespikeError(f"there is no {kind} {name!r}", suggest(name, table))
    return table[name]


def format_bytes(count: float) -> str:
    """A size in powers of a thousand: 1.5 MB."""
    if count < 999.5:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration: 4.2 s, 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_joules(joules: float) -> str:
    """An energy for people: 12.34 mJ, 45.60 µJ."""
    return f"{1e3 * joules:.2f} mJ" if joules >= 1e-3 else f"{1e6 * joules:.2f} µJ"


def format_share(share: float) -> str:
    """A share from 0 to 1 as a percentage: 12.3%."""
    return f"{share:.1%}"


def format_count(done: float, total: float | None, unit: str, between: str = " of ") -> str:
    """How much is done: 3 of 12, or 1.5 MB of 2.0 GB for the unit `bytes`; only the first if the total is unknown."""
    shown = [done] if total is None else [done, total]
    return between.join(format_bytes(count) if unit == "bytes" else f"{count:.0f}" for count in shown)


def format_rate(per_second: float, unit: str) -> str:
    """The speed of work: 12.3 videos/s, below one per second 3.1 s/video; 1.5 MB/s for the unit `bytes`."""
    if unit == "bytes":
        return f"{format_bytes(per_second)}/s"
    if per_second >= 1 or per_second <= 0:
        return f"{per_second:.1f} {unit}/s"
    one = unit[:-2] if unit.endswith(tuple(f"{ending}es" for ending in _ENDINGS_WITH_ES)) else unit.removesuffix("s")
    return f"{1 / per_second:.1f} s/{one}"
