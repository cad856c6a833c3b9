"""Config: values survive the round trip through JSON; an error names the field."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from respike.common.config import from_plain, to_plain
from respike.common.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Part:
    size: int
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    share: float = 0.5
    parts: tuple[Part, ...] = ()
    best: Part | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    numbers: tuple[int, ...] | None = None


WHOLE = Whole(
    name="x", share=1, parts=(Part(size=1), Part(size=2, kind="b")), best=Part(size=3), facts={"a": [1, None]}
)


def test_values_survive_the_round_trip():
    assert from_plain(Whole, to_plain(WHOLE)) == WHOLE
    assert to_plain(WHOLE)["parts"] == [{"size": 1, "kind": "a"}, {"size": 2, "kind": "b"}]
    assert from_plain(Whole, {"name": "x"}) == Whole(name="x")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"Whole is \[\].*JSON object"),
        ({}, "the field name is missing"),
        ({"name": "x", "more": 1}, "the field more is unknown"),
        ({"name": 1}, "the field name is 1 .*Expected `str`"),
        ({"name": "x", "share": True}, "the field share is True .*`float`"),
        ({"name": "x", "parts": [{"size": 1}, {"size": "2"}]}, r"the field parts\[1\]\.size is '2' .*`int`"),
        ({"name": "x", "parts": [{"size": 1, "kind": "c"}]}, r"parts\[0\]\.kind is 'c' .*Invalid enum"),
        ({"name": "x", "parts": {"size": 1}}, "the field parts is .*`array`"),
        ({"name": "x", "best": 1}, "the field best is 1 .*object"),
        ({"name": "x", "numbers": [1, 2.0]}, r"numbers\[1\] is 2\.0"),
        ({"name": "x" * 100, "share": "y" * 1000}, "the field share is 'y{50,58}…"),
    ],
)
def test_an_error_names_the_field(value, words):
    with pytest.raises(SettingError, match=words):
        from_plain(Whole, value)
