"""Conversion of frozen dataclasses to plain values and back, every field checked."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from respike.common.errors import SettingError

_T = TypeVar("_T")
_SIMPLE = (str, int, float, bool, types.NoneType)


def to_plain(value: Any) -> Any:
    """Turn dataclasses, tuples and mappings, however nested, into dicts and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(each) for name, each in value.items()}
    return [to_plain(each) for each in value] if isinstance(value, list | tuple) else value


def from_plain(kind: type[_T], value: object, where: str = "") -> _T:
    """Make a `kind`, a dataclass, of what `to_plain` gave of one; a field that is missing has its default.

    Raises SettingError that names a field, below `where`, that is unknown, missing or of another kind, and passes on
    what the dataclass itself says of a value out of range.
    """
    if not isinstance(value, Mapping):
        raise SettingError(f"{where or kind.__name__} is {_short(value)}", "needed is a JSON object")
    prefix = f"{where}." if where else ""
    hints = typing.get_type_hints(kind)
    if unknown := sorted(map(str, value.keys() - hints.keys())):
        raise SettingError(f"the field {prefix}{unknown[0]} is unknown", f"known are {', '.join(hints)}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        is_needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if is_needed and field.name not in value:
            raise SettingError(f"the field {prefix}{field.name} is missing", "name it")
    return kind(**{name: _convert(hints[name], each, f"{prefix}{name}") for name, each in value.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    options = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        origin, parts = typing.get_origin(option), get_args(option)
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            if isinstance(value, Mapping) or len(options) == 1:
                return from_plain(option, value, where)
        elif origin is tuple and isinstance(value, list):
            return tuple(_convert(parts[0], each, f"{where}[{number}]") for number, each in enumerate(value))
        elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
            return {str(name): _checked(each, f"{where}.{name}") for name, each in value.items()}
        elif origin is Literal:
            if any(type(value) is type(part) and value == part for part in parts):
                return value
        elif option is float and type(value) in (int, float):
            return float(value)
        elif option in _SIMPLE and type(value) is option:
            return value
    raise SettingError(f"the field {where} is {_short(value)}", f"needed is {_describe(options)}")


def _checked(value: Any, where: str) -> Any:
    """A value of any kind that JSON has."""
    if isinstance(value, _SIMPLE):
        return value
    if isinstance(value, list):
        return [_checked(each, where) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _checked(each, where) for name, each in value.items()}
    raise SettingError(f"the field {where} is {_short(value)}", "needed is what JSON has")


def _describe(options: tuple[Any, ...]) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    told = []
    for option in options:
        if typing.get_origin(option) is Literal:
            told.append(f"one of {', '.join(map(str, get_args(option)))}")
        elif typing.get_origin(option) is tuple:
            told.append("a list")
        else:
            told.append(names.get(option, "a JSON object"))
    return " or ".join(told)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
