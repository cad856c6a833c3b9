"""Config: settings as frozen dataclasses. Each field declares its type, bounds, help and option once.

A field is written as `epochs: Annotated[int, option("Passes over the clips.", ge=1)] = 100`. Checks on construction,
JSON, TOML, `--set`, the options of the command line and the tables of the documentation all use that declaration.
Values are converted by msgspec.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import inspect

from respike.common.errors import SettingError

T = TypeVar("T")
ConfigT = TypeVar("ConfigT", bound="Config")
# msgspec ends its messages with the place of the value
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_LONGEST_VALUE = 60


def option(
    text: str,
    *,
    name: str | None = None,
    metavar: str | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    multiple_of: int | None = None,
) -> msgspec.Meta:
    """Declare a setting: its help `text`, its bounds, and its option on the command line.

    `name` is the option without its leading dashes, if it differs from the field; an empty name makes no option.
    """
    bounds: Any = {"ge": ge, "gt": gt, "le": le, "lt": lt, "multiple_of": multiple_of}
    given = {bound: value for bound, value in bounds.items() if value is not None}
    return msgspec.Meta(description=text, extra={"option": name, "metavar": metavar}, **given)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The declaration of one field of a Config.

    `kind` is the annotation. `default` is `dataclasses.MISSING` for a required field. `option` is the name on the
    command line, without its leading dashes; empty if there is no option.
    """

    name: str
    kind: Any
    default: Any
    help: str
    option: str
    metavar: str | None

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed texts; empty if any text, or no text, is allowed."""
        return tuple(str(value) for kind in _members(self.kind) for value in _literals(kind))

    @property
    def is_switch(self) -> bool:
        """Whether the setting is true or false."""
        return _members(self.kind) == [bool]

    @property
    def number_type(self) -> type[int] | type[float] | None:
        """Int or float if the setting is a number, else None."""
        kinds = [kind for kind in _members(self.kind) if kind is not type(None)]
        return kinds[0] if kinds in ([int], [float]) else None

    @property
    def allowed(self) -> str:
        """The allowed values in words, such as `a whole number from 1`."""
        return _describe(inspect.type_info(self.kind))

    def convert(self, value: object) -> Any:
        """Return `value` converted to the setting's type. "none" means None if None is allowed, as TOML has no null.

        Raises SettingError that names the setting, the value and what is allowed.
        """
        if value == "none" and type(None) in _members(self.kind):
            value = None
        try:
            converted = msgspec.convert(value, self.kind, strict=True)
        except msgspec.ValidationError:
            raise self._error(value) from None
        if any(isinstance(number, float) and not math.isfinite(number) for number in _flatten(converted)):
            raise self._error(value)
        return converted

    def _error(self, value: object) -> SettingError:
        allowed = f"choose from {', '.join(self.choices)}" if self.is_choice else f"give {self.allowed}"
        return SettingError(f"{self.name} is {short_repr(value)}", allowed, setting=self.name)

    @property
    def is_choice(self) -> bool:
        """Whether the setting is one of a few texts."""
        return all(get_origin(kind) is Literal for kind in _members(self.kind) if kind is not type(None))


class Config:
    """The base class of frozen dataclasses of settings: checked on construction, converted to JSON and back.

    Rules between several fields belong in `check`, which raises SettingError.
    """

    def __post_init__(self) -> None:
        for setting in settings_of(type(self)):
            object.__setattr__(self, setting.name, setting.convert(getattr(self, setting.name)))
        self.check()

    def check(self) -> None:
        """Check rules between several fields. Raises SettingError."""

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dict(to_plain(self))

    @classmethod
    def from_json(cls: type[ConfigT], value: object) -> ConfigT:
        """Read what `to_json` returned; a missing field gets its default. Raises SettingError that names the field."""
        return from_plain(cls, value)

    def override(self: ConfigT, values: Mapping[str, object]) -> ConfigT:
        """Return a copy with other values. Raises SettingError that suggests the nearest name for an unknown one."""
        names = [setting.name for setting in settings_of(type(self))]
        for name in values:
            if name not in names:
                raise unknown_setting(name, names)
        return dataclasses.replace(self, **values)  # type: ignore[type-var]


def settings_of(kind: Any) -> tuple[Setting, ...]:
    """The settings that a dataclass declares, in order."""
    return _read_settings(kind)


@cache
def _read_settings(kind: Any) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return tuple(_setting_of(field, hints[field.name]) for field in dataclasses.fields(kind) if field.init)


def _setting_of(field: "dataclasses.Field[Any]", kind: Any) -> Setting:
    meta = next((each for each in getattr(kind, "__metadata__", ()) if isinstance(each, msgspec.Meta)), msgspec.Meta())
    extra = meta.extra or {"option": "", "metavar": None}
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    name = extra["option"]
    return Setting(
        name=field.name,
        kind=kind,
        default=default,
        help=meta.description or "",
        option=field.name.replace("_", "-") if name is None else name,
        metavar=extra["metavar"],
    )


def unknown_setting(name: str, names: Iterable[str], where: str = "") -> SettingError:
    """The error for an unknown setting: it suggests the nearest name, else lists all."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
    return SettingError(f"there is no setting {name!r}{where}", hint, setting=name)


def to_plain(value: Any) -> Any:
    """Convert nested dataclasses, tuples and mappings into dicts and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(each) for name, each in value.items()}
    return [to_plain(each) for each in value] if isinstance(value, list | tuple) else value


def from_plain(kind: type[T], value: object, where: str = "") -> T:
    """Make a dataclass `kind` from what `to_plain` returned; a missing field gets its default.

    Raises SettingError that names the field, below `where`, if it is unknown, missing or of another type. Errors of the
    dataclass itself pass through.
    """
    _check_names(kind, value, where)
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        message = str(error)
        match = _PLACE.search(message)
        place = match[1] if match else ""
        prefix = f"{where}." if where and place else where
        needed = _PLACE.sub("", message)
        raise SettingError(f"the field {prefix}{place} is {short_repr(_look_up(value, place))}", needed) from None


def _check_names(kind: Any, value: object, where: str) -> None:
    """Refuse unknown and missing fields, in `value` and below; msgspec ignores unknown ones."""
    if not isinstance(value, Mapping):
        raise SettingError(f"{where or kind.__name__} is {short_repr(value)}", "give a table (a JSON object)")
    prefix = f"{where}." if where else ""
    settings = {setting.name: setting for setting in settings_of(kind)}
    if unknown := sorted(map(str, value.keys() - settings.keys())):
        raise SettingError(f"the field {prefix}{unknown[0]} is unknown", f"choose from {', '.join(settings)}")
    for name, setting in settings.items():
        if setting.default is dataclasses.MISSING and name not in value:
            raise SettingError(f"the field {prefix}{name} is missing", "add it")
        for member in _members(setting.kind):
            below = value.get(name)
            if dataclasses.is_dataclass(member) and isinstance(below, Mapping):
                _check_names(member, below, f"{prefix}{name}")
            parts = get_args(member)
            if parts and dataclasses.is_dataclass(parts[0]) and isinstance(below, Sequence):
                for number, each in enumerate(below):
                    _check_names(parts[0], each, f"{prefix}{name}[{number}]")


def short_repr(value: object) -> str:
    """The value as Python shows it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}…"


def _members(kind: Any) -> list[Any]:
    """The types of a union, without annotations; for another type, a list of that type alone."""
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if get_origin(kind) in (typing.Union, types.UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    return [kind]


def _literals(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _flatten(value: object) -> Iterable[object]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flatten(each)
    else:
        yield value


def _look_up(value: Any, place: str) -> object:
    """The value at a place as msgspec names it, such as `parts[1].size`."""
    for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", place):
        try:
            value = value[int(number)] if number else value[name]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _describe(kind: inspect.Type) -> str:
    """A type and its bounds in words."""
    match kind:
        case inspect.Metadata():
            return _describe(kind.type)
        case inspect.UnionType():
            return " or ".join(_describe(member) for member in kind.types)
        case inspect.IntType():
            return "a whole number" + _bounds(kind)
        case inspect.FloatType():
            return "a number" + _bounds(kind)
        case inspect.LiteralType():
            names = ", ".join(map(str, kind.values))
            return names if len(kind.values) == 1 else f"one of {names}"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return "text"
        case inspect.NoneType():
            return "none"
        case inspect.TupleType():
            return f"a list of {len(kind.item_types)}"
        case inspect.VarTupleType():
            return f"a list, each {_describe(kind.item_type)}"
        case _:
            return "a table"


def _bounds(kind: "inspect.IntType | inspect.FloatType") -> str:
    words = [
        f"{word} {_number(bound)}"
        for word, bound in (("from", kind.ge), ("above", kind.gt), ("up to", kind.le), ("below", kind.lt))
        if bound is not None
    ]
    text = " ".join(["", *words])
    return text if kind.multiple_of is None else f"{text}, a multiple of {_number(kind.multiple_of)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
