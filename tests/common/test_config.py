"""Config: values survive the round trip through JSON; an error names the field."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from respike.common.config import Config, from_plain, option, settings_of, to_plain
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


@dataclass(frozen=True, kw_only=True)
class Training(Config):
    epochs: Annotated[int, option("Passes over the clips.", ge=1)] = 100
    rate: Annotated[float, option("Learning rate.", gt=0, name="learning-rate")] = 0.1
    drop: Annotated[float, option("Dropout; none leaves the model's.", ge=0, lt=1)] | None = None
    schedule: Annotated[Literal["cosine", "linear"], option("Form of the schedule.")] = "cosine"

    def check(self) -> None:
        if self.schedule == "linear" and self.epochs < 2:
            raise SettingError("linear needs 2 epochs or more", setting="epochs")


def test_each_setting_is_declared_once():
    epochs, rate, drop, schedule = settings_of(Training)
    assert (epochs.option, rate.option) == ("epochs", "learning-rate")
    assert epochs.help == "Passes over the clips."
    assert (epochs.default, epochs.allowed) == (100, "a whole number from 1")
    assert (drop.number_type, drop.allowed) == (float, "a number from 0 below 1 or none")
    assert schedule.choices == ("cosine", "linear")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, r"epochs is 0 \(give a whole number from 1\)"),
        ({"epochs": 1.5}, r"epochs is 1\.5"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"schedule": "cubic"}, r"schedule is 'cubic' \(choose from cosine, linear\)"),
        ({"schedule": "linear", "epochs": 1}, "linear needs 2 epochs"),
        ({"epoch": 1}, r"there is no setting 'epoch' \(did you mean 'epochs'\?\)"),
    ],
)
def test_a_setting_out_of_range_is_refused(values, words):
    with pytest.raises(SettingError, match=words):
        Training().override(values)


def test_settings_survive_json_and_take_none_as_text():
    training = Training(epochs=3, drop=0.5)
    assert Training.from_json(training.to_json()) == training
    assert training.override({"drop": "none"}).drop is None
