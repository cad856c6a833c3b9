"""Acquire: download and unpack the missing files of a data set."""

import importlib.resources
import json
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit

from msgspec import Meta

from respike.common.config import from_plain
from respike.common.download import FetchSettings, fetch
from respike.common.errors import DatasetError, RespikeError, SettingError
from respike.common.files import canonical_json, folder_lock, write_atomically
from respike.common.progress import SILENCE, Progress
from respike.common.storage import THIS_MACHINE, check_address, is_web, protocol_of
from respike.data.archives import is_archive, require_rar_program, stem, unpack

ENVIRONMENT_VARIABLE = "RESPIKE_SOURCES"
_ARCHIVES = "archives"
_FETCH_SETTINGS = FetchSettings()
_SEE_DOCS = "docs/datasets.md describes the file"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One published file; `sources.toml` describes the fields.

    Raises SettingError on a path that leads out of the root, and on an address that respike does not open.
    """

    name: str
    addresses: tuple[str, ...]
    to: str
    sha256: str | None = None
    num_bytes: Annotated[int, Meta(ge=0)] | None = None
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
        """Whether the file has to be unpacked."""
        return is_archive(self.name)

    def listed(self, text: str) -> list["Source"]:
        """The archives that a list of addresses names; each becomes a folder in `to`.

        A relative address is relative to the address of the list. Raises SettingError on an address that leads from
        another place to this machine, or from the web to anything but the web, and on two archives of one name.
        """
        sources: dict[str, Source] = {}
        base = self.addresses[0]
        for line in text.split():
            address = _join(base, line)
            if is_web(base) and not is_web(address):
                raise SettingError(f"{self.name} names {line!r}, which is not on the web", "look at the list")
            if _is_local(address) and not _is_local(base):
                raise SettingError(f"{self.name} names {line!r}, which is on this machine", "look at the list")
            name = PurePosixPath(urlsplit(address).path).name
            if not is_archive(name) or name in sources:
                raise SettingError(
                    f"{self.name} names {line!r}, which is no archive or was named before", "look at the list"
                )
            sources[name] = Source(name=name, addresses=(address,), to=f"{self.to}/{stem(name)}")
        if not sources:
            raise SettingError(f"{self.name} names no archive", "look at the list")
        return list(sources.values())


def _is_local(address: str) -> bool:
    return protocol_of(address) in ("", *THIS_MACHINE)


def _join(base: str, line: str) -> str:
    """`urljoin` for all protocols: for `s3://` and others it returns a relative address unchanged, a local path."""
    protocol = protocol_of(base)
    if not protocol or protocol_of(line):
        return urljoin(base, line)
    rest = base.partition("://")[2]
    return f"{protocol}://" + urljoin(f"http://{rest}", line).removeprefix("http://")


def read_sources(dataset: str, path: Path | None = None) -> tuple[Source, ...]:
    """Return the sources of a data set, from the file at `path` or in RESPIKE_SOURCES if it names the data set.

    Otherwise they come from the published table. Raises SettingError if the file is malformed, or if neither names the
    data set.
    """
    published = importlib.resources.files("respike.data.datasets").joinpath("sources.toml").read_text("utf-8")
    tables = {"sources.toml": _parse(published, "sources.toml")}
    own = path or (Path(value) if (value := os.environ.get(ENVIRONMENT_VARIABLE)) else None)
    if own is not None:
        try:
            text = own.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(
                f"cannot read the sources {own}: {error}", "check the path", setting="sources"
            ) from error
        # the user's own file comes first
        tables = {str(own): _parse(text, str(own))} | tables
    for where, table in tables.items():
        if dataset in table:
            return _read_table(dataset, table[dataset], where)
    known = ", ".join(sorted({name for table in tables.values() for name in table}))
    raise SettingError(
        f"no source is known for {dataset}, only for {known}",
        "put its videos under the root by hand, or name its archives in a file of sources (setting sources, or "
        f"{ENVIRONMENT_VARIABLE}); {_SEE_DOCS}",
        setting="sources",
    )


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{where} is no TOML: {error}", _SEE_DOCS) from error


def _read_table(dataset: str, rows: object, where: str) -> tuple[Source, ...]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise SettingError(f"{where}: {dataset} is no list of tables", f"write [[{dataset}]]; {_SEE_DOCS}")
    try:
        sources = tuple(from_plain(Source, row, f"{dataset}[{number}]") for number, row in enumerate(rows))
    except SettingError as error:
        raise SettingError(f"{where}: {error.problem}", f"{error.hint}; {_SEE_DOCS}") from error
    if len({source.name for source in sources}) < len(sources):
        raise SettingError(f"{where}: {dataset} has two files of one name", _SEE_DOCS)
    return sources


@dataclass(frozen=True, kw_only=True)
class AcquireSettings:
    """How the files of a data set are acquired.

    `drop_archives` removes each archive after it was unpacked. `offline` uses only archives that are there. `fetch` are
    the timeouts and retries of the downloads.
    """

    drop_archives: bool = False
    offline: bool = False
    fetch: FetchSettings = _FETCH_SETTINGS


def acquire_dataset(
    root: Path,
    sources: Sequence[Source],
    list_videos: Callable[[], object],
    settings: AcquireSettings = AcquireSettings(),
    *,
    progress: Progress = SILENCE,
) -> None:
    """Download and unpack, under `root`, the `sources` that are missing.

    Nothing is done if `list_videos` raises no DatasetError, unless an earlier call was interrupted. Files of the user
    are left alone. Archives go to `ROOT/archives/`, where the user may put them as well. Each one is downloaded,
    unpacked and, if asked for, removed before the next. Raises DownloadError, ArchiveError, or RespikeError if no
    program that unpacks RAR is installed.
    """
    plan_path = root / _ARCHIVES / "unfinished.json"
    if not plan_path.exists() and _can_list(list_videos):
        progress.say(f"nothing to download: {root} holds the data set")
        return
    with folder_lock(root / _ARCHIVES / "lock", "downloading the data set"):
        names = _read_plan(plan_path)
        if names is None:
            names = [source.name for source in sources if not _exists(source, root)]
        planned = [source for source in sources if source.name in names]
        if any(_is_rar(source) and not (root / source.to).exists() for source in planned):
            require_rar_program()  # before hours of download, not after
        write_atomically(plan_path, canonical_json(names))
        for source in planned:
            _acquire_source(source, root, settings, progress)
        plan_path.unlink()


def _can_list(list_videos: Callable[[], object]) -> bool:
    try:
        list_videos()
    except DatasetError:
        return False
    return True


def _exists(source: Source, root: Path) -> bool:
    return any((root / name).exists() for name in (source.to, *source.unless))


def _is_rar(source: Source) -> bool:
    return source.name.lower().endswith(".rar")


def _read_plan(path: Path) -> list[str] | None:
    """The names that an interrupted call meant to acquire; None if there was none.

    An existing folder does not show that a source is complete, as a list may have been acquired in part.
    """
    with suppress(OSError, ValueError):
        names = json.loads(path.read_text("utf-8"))
        if isinstance(names, list):
            return [str(name) for name in names]
    return None


def _acquire_source(source: Source, root: Path, settings: AcquireSettings, progress: Progress) -> None:
    if source.is_list:
        list_path = root / _ARCHIVES / source.name
        _fetch(source, list_path, settings, progress)
        archives = source.listed(list_path.read_text("utf-8", errors="replace"))
        missing = [archive for archive in archives if not (root / archive.to).exists()]
        if len(missing) < len(archives):
            progress.say(f"{source.to}: archives unpacked before: {len(archives) - len(missing)} of {len(archives)}")
        for archive in missing:
            _acquire_archive(archive, root, settings, progress, folder=source.to)
    elif not (root / source.to).exists():
        if source.is_archive:
            _acquire_archive(source, root, settings, progress)
        else:
            _fetch(source, root / source.to, settings, progress)


def _acquire_archive(
    source: Source, root: Path, settings: AcquireSettings, progress: Progress, *, folder: str = ""
) -> None:
    # the user may also have put the archive beside the videos
    by_hand = root / source.name
    path = by_hand if by_hand.is_file() else root / _ARCHIVES / folder / source.name
    _fetch(source, path, settings, progress)
    target = root / source.to
    target.parent.mkdir(parents=True, exist_ok=True)
    unpack(path, target, progress, nested=source.nested)
    if settings.drop_archives and path != by_hand:
        path.unlink()


def _fetch(source: Source, path: Path, settings: AcquireSettings, progress: Progress) -> None:
    address, *mirrors = source.addresses
    try:
        fetch(
            address,
            path,
            mirrors=mirrors,
            sha256=source.sha256,
            num_bytes=source.num_bytes,
            offline=settings.offline,
            progress=progress,
            settings=settings.fetch,
        )
    except RespikeError as error:
        error.hint = f"{error.hint}; or name another address in a file of sources (setting sources)"
        raise
