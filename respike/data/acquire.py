"""Acquire: download and unpack what a dataset lacks."""

import dataclasses
import importlib.resources
import json
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from respike.common.download import FetchSettings, fetch
from respike.common.errors import LayoutError, RespikeError, SettingError
from respike.common.files import canonical_json, folder_lock, write_atomically
from respike.common.progress import SILENCE, Progress
from respike.common.storage import THIS_MACHINE, check_address, is_web, protocol_of
from respike.common.text import agree, counted_of
from respike.data.archives import is_archive, require_rar_program, stem, unpack

ENVIRONMENT_VARIABLE = "RESPIKE_SOURCES"
_FORM = "docs/datasets.md shows the form"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One published file; `sources.toml` says what each field means.

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


def read_sources(dataset: str, path: Path | None = None) -> tuple[Source, ...]:
    """The sources of a data set: those in the file at `path` (else in RESPIKE_SOURCES) if it names the data set.

    Raises SettingError where the file is malformed, and where neither it nor the published table knows the data set.
    """
    published = importlib.resources.files("respike.data.datasets").joinpath("sources.toml").read_text("utf-8")
    tables = [(_parse(published, "sources.toml"), "sources.toml")]
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


_ARCHIVES = "archives"
_PATIENT = FetchSettings()


@dataclass(frozen=True, kw_only=True)
class AcquireSettings:
    """`drop_archives`: remove each archive once it is unpacked; `offline`: use only archives that are there."""

    drop_archives: bool = False
    offline: bool = False
    patience: FetchSettings = _PATIENT


def acquire_dataset(
    root: Path,
    sources: Sequence[Source],
    list_videos: Callable[[], object],
    settings: AcquireSettings = AcquireSettings(),
    *,
    progress: Progress = SILENCE,
) -> None:
    """Fetch and unpack, under `root`, those of the `sources` that are not there.

    Nothing is done where `list_videos` lists (raises no LayoutError), unless an earlier call was stopped half-way; what
    the user put there is left alone. Archives go to `ROOT/archives/`, also by hand, and each is fetched, unpacked and,
    on demand, removed before the next. Raises DownloadError, ArchiveError, or RespikeError where no program is
    installed that unpacks RAR.
    """
    plan_path = root / _ARCHIVES / "unfinished.json"
    if not plan_path.exists() and _lists(list_videos):
        progress.say(f"nothing to download: {root} holds the data set")
        return
    with folder_lock(root / _ARCHIVES / "lock", "downloading the data set"):
        names = _read_plan(plan_path)
        if names is None:
            names = [source.name for source in sources if not _is_there(source, root)]
        planned = [source for source in sources if source.name in names]
        if any(_is_rar(source) and not (root / source.to).exists() for source in planned):
            require_rar_program()  # said before hours of download, not after
        write_atomically(plan_path, canonical_json(names))
        for source in planned:
            _obtain_one(source, root, settings, progress)
        plan_path.unlink()


def _lists(list_videos: Callable[[], object]) -> bool:
    try:
        list_videos()
    except LayoutError:
        return False
    return True


def _is_there(source: Source, root: Path) -> bool:
    return any((root / name).exists() for name in (source.to, *source.unless))


def _is_rar(source: Source) -> bool:
    return source.name.lower().endswith(".rar")


def _read_plan(path: Path) -> list[str] | None:
    """What a call that was stopped had set out to get: a folder of it that is there may be half of what is wanted."""
    with suppress(OSError, ValueError):
        names = json.loads(path.read_text())
        if isinstance(names, list):
            return [str(name) for name in names]
    return None


def _obtain_one(source: Source, root: Path, settings: AcquireSettings, progress: Progress) -> None:
    if source.is_list:
        list_path = _fetch(source, root / _ARCHIVES / source.name, settings, progress)
        archives = source.listed(list_path.read_text("utf-8", errors="replace"))
        missing = [archive for archive in archives if not (root / archive.to).exists()]
        if len(missing) < len(archives):
            num_there = len(archives) - len(missing)
            are = agree(num_there, "is", "are")
            progress.say(f"{source.to}: {counted_of(num_there, len(archives), 'archive')} {are} there")
        for archive in missing:
            _obtain_archive(archive, root, settings, progress, folder=source.to)
    elif not (root / source.to).exists():
        if source.is_archive:
            _obtain_archive(source, root, settings, progress)
        else:
            _fetch(source, root / source.to, settings, progress)


def _obtain_archive(
    source: Source, root: Path, settings: AcquireSettings, progress: Progress, *, folder: str = ""
) -> None:
    # an archive that was put beside the videos by hand will do as well
    by_hand = root / source.name
    path = by_hand if by_hand.is_file() else root / _ARCHIVES / folder / source.name
    _fetch(source, path, settings, progress)
    target = root / source.to
    target.parent.mkdir(parents=True, exist_ok=True)
    unpack(path, target, progress, nested=source.nested)
    if settings.drop_archives and path != by_hand:
        path.unlink()


def _fetch(source: Source, path: Path, settings: AcquireSettings, progress: Progress) -> Path:
    address, *mirrors = source.addresses
    try:
        return fetch(
            address,
            path,
            mirrors=mirrors,
            sha256=source.sha256,
            num_bytes=source.num_bytes,
            offline=settings.offline,
            progress=progress,
            settings=settings.patience,
        )
    except RespikeError as error:
        error.hint = f"{error.hint}; another address can be given with --sources"
        raise
