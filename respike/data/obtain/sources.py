"""Sources: which files make a data set, where they are, what they become. One table, which a user's file overrides."""

import dataclasses
import importlib.resources
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from respike.addresses import THIS_MACHINE, check_address, is_web, protocol_of
from respike.errors import RespikeError, SettingError

ENVIRONMENT_VARIABLE = "RESPIKE_SOURCES"
_FORM = "docs/datasets.md shows the form"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One published file; `published.toml` says what each field means.

    Raises SettingError on paths out of the root and on addresses that respike does not open.
    """

    name: str
    addresses: tuple[str, ...]
    to: str
    sha256: str | None = None
    num_bytes: int | None = None
    unless: tuple[str, ...] = ()
    nested: bool = False
    is_list: bool = False

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("to", self.to)):
            path = PurePosixPath(value)
            leads_out = path.is_absolute() or ".." in path.parts or not path.parts or "\0" in value
            if leads_out or (field == "name" and "/" in value):
                raise SettingError(f"{field} = {value!r} leads out of its folder", "give a plain relative path")
        if not self.addresses:
            raise SettingError(f"{self.name} has no addresses", "give one or more")
        for address in self.addresses:
            try:
                check_address(address)
            except RespikeError as error:
                raise SettingError(f"{self.name}: {error.problem}", error.hint) from error
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise SettingError(f"the sha256 of {self.name} is {self.sha256!r}", "give 64 hex digits, or leave it out")

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked."""
        return is_archive(self.name)

    def listed(self, text: str) -> list["Source"]:
        """The archives that a list of addresses names; each becomes a folder in `to`.

        Relative ones count from the list's own address. Raises SettingError on one that leads from elsewhere to this
        machine or from the web to anything but the web, and on two of one name.
        """
        sources: dict[str, Source] = {}
        base = self.addresses[0]
        for line in text.split():
            address = _join(base, line)
            if is_web(base) and not is_web(address):
                raise SettingError(f"{self.name} names {line!r}, which is not on the web", "look at the list")
            if _is_here(address) and not _is_here(base):
                raise SettingError(f"{self.name} names {line!r}, which is on this machine", "look at the list")
            name = PurePosixPath(urlsplit(address).path).name
            if not is_archive(name) or name in sources:
                raise SettingError(f"{self.name} names {line!r}, no archive or one named before", "look at the list")
            sources[name] = Source(name=name, addresses=(address,), to=f"{self.to}/{stem(name)}")
        if not sources:
            raise SettingError(f"{self.name} names no archive", "look at the list")
        return list(sources.values())


def _is_here(address: str) -> bool:
    return protocol_of(address) in ("", *THIS_MACHINE)


def _join(base: str, line: str) -> str:
    """`urljoin`, which for `s3://` and its like takes a relative address as it stands, a path of this machine."""
    protocol = protocol_of(base)
    if not protocol or protocol_of(line):
        return urljoin(base, line)
    rest = base.partition("://")[2]
    return f"{protocol}://" + urljoin(f"http://{rest}", line).removeprefix("http://")


def is_archive(name: str) -> bool:
    """Whether a file of this name can be unpacked."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def stem(name: str) -> str:
    """An archive's name without its suffix."""
    suffix = max((suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]


def read_sources(dataset: str, path: Path | None = None) -> tuple[Source, ...]:
    """The sources of a data set: those in the file at `path` (else in RESPIKE_SOURCES) if it names the data set.

    Raises SettingError where the file is malformed, and where neither it nor the published table knows the data set.
    """
    published = importlib.resources.files("respike.data.obtain").joinpath("published.toml").read_text("utf-8")
    tables = [(_parse(published, "published.toml"), "published.toml")]
    given = path or (Path(value) if (value := os.environ.get(ENVIRONMENT_VARIABLE)) else None)
    if given is not None:
        tables.insert(0, (_parse(_read(given), str(given)), str(given)))
    for table, where in tables:
        if dataset in table:
            return _sources(table[dataset], f"{where}: {dataset}")
    known = ", ".join(sorted({name for table, _ in tables for name in table}))
    raise SettingError(
        f"no source is known for {dataset}, only for {known}",
        f"put its videos under --root by hand, or name its archives in a file and give it with --sources or "
        f"{ENVIRONMENT_VARIABLE}",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"cannot read the sources {path}: {error}", "check the path") from error


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{where} is no TOML: {error}", _FORM) from error


_KINDS: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "addresses": (list, "a list of texts"),
    "to": (str, "a text"),
    "sha256": (str, "a text"),
    "num_bytes": (int, "a number"),
    "unless": (list, "a list of texts"),
    "nested": (bool, "true or false"),
    "is_list": (bool, "true or false"),
}


def _sources(rows: object, where: str) -> tuple[Source, ...]:
    if not isinstance(rows, list) or not rows:
        raise SettingError(f"{where} is no list of tables", _FORM)
    sources = tuple(_source(row, f"{where} number {number}") for number, row in enumerate(rows, 1))
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise SettingError(f"{where} has two files of one name", _FORM)
    return sources


def _source(row: Any, where: str) -> Source:
    if not isinstance(row, dict):
        raise SettingError(f"{where} is no table", _FORM)
    if unknown := sorted(set(row) - set(_KINDS)):
        raise SettingError(f"{where} has {', '.join(unknown)}; known: {', '.join(_KINDS)}", _FORM)
    required = [field.name for field in dataclasses.fields(Source) if field.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in row]:
        raise SettingError(f"{where} lacks {', '.join(missing)}", _FORM)
    values: dict[str, Any] = {}
    for name, value in row.items():
        kind, told = _KINDS[name]
        if not _fits(value, kind):
            raise SettingError(f"{where}: {name} is {value!r}, not {told}", _FORM)
        values[name] = tuple(value) if kind is list else value
    return Source(**values)


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, list):
        return kind is list and all(isinstance(each, str) for each in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, kind)
