"""Storage: addresses that may be opened, and folders at addresses through fsspec."""

import base64
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from respike.common.errors import RespikeError

PROTOCOLS_VARIABLE = "RESPIKE_PROTOCOLS"
# stores that move bytes and do nothing else. Left out: what wraps another address (simplecache, reference), opens
# archives (zip), or reads through a program or a machine that runs code (git, github, dask, jupyter)
PROTOCOLS = (
    *("https", "http", "hf"),
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos"),
    *("sftp", "ssh", "ftp", "smb", "webdav", "hdfs", "webhdfs"),
    *("file", "local", "memory"),
)
_WEB = ("http", "https")
THIS_MACHINE = frozenset(["file", "local", "memory"])


def protocol_of(address: str) -> str:
    """What stands before the first colon, in small letters; "" for a path on this machine.

    What only looks like an address is one, so that `pipe:` does not slip by.
    """
    scheme = address.partition(":")[0]
    # one letter is a drive
    is_scheme = len(scheme) > 1 and scheme.isascii() and scheme[0].isalpha() and ":" in address
    return scheme.lower() if is_scheme and all(each.isalnum() or each in "+-." for each in scheme) else ""


def is_address(path: str) -> bool:
    """Whether `path` is no path on this machine: the one answer for all that takes either."""
    return bool(protocol_of(path))


def is_web(address: str) -> bool:
    """Whether an address is asked by HTTP."""
    return protocol_of(address) in _WEB


def check_address(address: str) -> None:
    """Raise RespikeError, naming the allowed, on an address that is none of them: `pipe:`, `git://`, `a::s3://…`.

    Others that fsspec knows are opened where RESPIKE_PROTOCOLS names them, parted by spaces.
    """
    protocol = protocol_of(address)
    allowed = (*PROTOCOLS, *os.environ.get(PROTOCOLS_VARIABLE, "").lower().split())
    # of a web address, colons are those of an IPv6 host, or a part of the path: none leads fsspec on
    is_chain = "::" in address and not is_web(address)
    if protocol and (protocol not in allowed or is_chain or "://" not in address):
        raise RespikeError(
            f"{without_password(address)!r} is no address that respike opens; allowed are a path and "
            f"{', '.join(f'{each}://' for each in allowed)}",
            f"for a path of that name, ./ first; another store's protocol, if you trust it, in {PROTOCOLS_VARIABLE}",
        )


def open_address(address: str) -> tuple["fsspec.AbstractFileSystem", str]:
    """The file system behind an address, or a path of this machine, and the path on it.

    Raises RespikeError as `check_address` does, and where a package is missing that the address needs.
    """
    check_address(address)
    if not is_address(address):
        system = fsspec.filesystem("file")
        return system, str(system._strip_protocol(address))
    protocol = protocol_of(address)
    # fsspec knows protocols in small letters alone
    address = protocol + address[len(protocol) :]
    try:
        if is_web(address):
            return fsspec.filesystem(protocol), address
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise RespikeError(
            f"{without_password(address)!r} cannot be opened: {error}", "install that package, then try again"
        ) from error
    except ValueError as error:
        raise RespikeError(
            f"{without_password(address)!r} cannot be opened: {error}",
            "give a path, or an address such as s3://bucket/folder or hf://datasets/owner/name",
        ) from error
    return system, str(path)


def without_password(address: str) -> str:
    """The address as it may be shown."""
    if "@" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


Answer = TypeVar("Answer")

MAX_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.5
_CHUNK_BYTES = 8 << 20
# no second attempt helps
_HOPELESS = (PermissionError, NotImplementedError, NotADirectoryError)
# an object of these appears whole or not at all; elsewhere a reader could see half a file
_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf", "r2"}


class RemoteFolder:
    """Files under one address, by name. It pickles, to be used by workers.

    Raises RespikeError in one line where the address is none that respike opens or an operation fails `MAX_ATTEMPTS`
    times.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._system, self._root = open_address(self.address)
        protocols = self._system.protocol
        self._whole = bool(_WHOLE_OBJECTS & {protocols} if isinstance(protocols, str) else set(protocols))

    def __str__(self) -> str:
        return self.address

    @property
    def in_this_process(self) -> bool:
        """Whether what is written here is seen by this process alone, as in fsspec's memory file system."""
        return isinstance(self._system, fsspec.get_filesystem_class("memory"))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Names of the files right under `folder`, with their bytes; empty where there is no such folder."""

        def look() -> dict[str, int]:
            self._system.invalidate_cache()
            try:
                entries = self._system.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries if entry["type"] == "file"}

        return self._insist(look, f"list {folder or 'files'}")

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""

        def look() -> bytes | None:
            self._system.invalidate_cache()
            try:
                return bytes(self._system.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

        return self._insist(look, f"read {name}")

    def read_all(self, folder: str) -> dict[str, bytes]:
        """The contents of the small files right under `folder`, by name; many at once where the store allows it."""
        names = sorted(self.sizes(folder))
        if not names:
            return {}
        paths = [self._path(f"{folder}/{name}") for name in names]

        def look() -> dict[str, bytes]:
            # what went since it was listed is left out; what fails is no less there
            found = self._system.cat(paths, on_error="return")
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
            return {
                path.rsplit("/", 1)[-1]: bytes(content)
                for path, content in found.items()
                if not isinstance(content, Exception)
            }

        return self._insist(look, f"read {folder}")

    def write(self, name: str, content: bytes | str) -> None:
        """Write a small file, and hold what stands there against `content`."""
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content

        def put() -> None:
            self._store(name, lambda path: self._system.pipe_file(path, data))
            if self.read(name) != data:
                raise _DifferentError(f"{name} reads otherwise than it was written")

        self._insist(put, f"write {name}")

    def create(self, name: str, content: str) -> bool:
        """Write a small file unless one exists; return whether it was written.

        Of several processes that try at once, one succeeds on stores that have conditional writes; other stores look
        first and then write. False may also mean that an attempt whose answer was lost has written the file.
        """
        path, data = self._path(name), content.encode("utf-8", "surrogateescape")

        def put() -> bool:
            try:
                if not self._whole:
                    self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
                if isinstance(self._system, LocalFileSystem):
                    with self._system.open(path, "xb") as file:
                        file.write(data)
                else:
                    self._system.pipe_file(path, data, mode="create")
            except Exception:
                # each store has its own exception for a file that exists
                if self.read(name) is None:
                    raise
                return False
            return True

        return self._insist(put, f"write {name}")

    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine here, and hold what stands there against it by size and checksum."""
        num_bytes = path.stat().st_size

        def put() -> None:
            self._store(name, lambda target: self._system.put_file(str(path), target))
            self._check(path, name, num_bytes)

        self._insist(put, f"write {name}")

    def download(self, name: str, path: Path) -> str:
        """Copy a file from here to `path`; return the SHA-256 of what arrived."""

        def get() -> str:
            digest = hashlib.sha256()
            with self._system.open(self._path(name), "rb") as source, path.open("wb") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            return digest.hexdigest()

        return self._insist(get, f"read {name}")

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""

        def drop() -> None:
            try:
                self._system.rm_file(self._path(name))
            except FileNotFoundError:
                return

        self._insist(drop, f"remove {name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _store(self, name: str, put: Callable[[str], Any]) -> None:
        """Put a file under its name: at once where an object is whole or absent, else by a temporary name."""
        path = self._path(name)
        if self._whole:
            put(path)
            return
        folder, _, last = path.rpartition("/")
        self._system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.tmp"
        put(temporary)
        self._system.mv(temporary, path)

    def _check(self, path: Path, name: str, num_bytes: int) -> None:
        self._system.invalidate_cache()
        facts = self._system.info(self._path(name))
        if facts["size"] != num_bytes:
            raise _DifferentError(f"{name} holds {facts['size']:,} bytes there, {num_bytes:,} were sent")
        if (given := _md5_of(facts)) is not None and given == _digest(path, "md5"):
            return
        # the store tells no checksum, or one of its own kind
        digest = hashlib.sha256()
        with self._system.open(self._path(name), "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != _digest(path, "sha256"):
            raise _DifferentError(f"{name} reads otherwise than it was sent")

    def _insist(self, act: Callable[[], Answer], what: str) -> Answer:
        """Try again, after growing pauses, what a network may spoil; then say what went wrong in one line."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return act()
            # each store has exceptions of its own, which share no better ancestor
            except Exception as error:
                if isinstance(error, RespikeError):
                    raise
                if attempt == MAX_ATTEMPTS or isinstance(error, _HOPELESS):
                    raise RespikeError(f"cannot {what} under {self.address}: {_reason(error)}", _HINT) from error
            time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


class _DifferentError(Exception):
    """The store holds something else than it was given."""


_HINT = "look at the address, the credentials and the network, then run the same command again"


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _md5_of(facts: dict[str, Any]) -> str | None:
    """The MD5 that a store tells of an object, if it does, as hex digits."""
    if isinstance(given := facts.get("md5Hash") or facts.get("content_md5"), str):
        return base64.b64decode(given).hex()
    if isinstance(given, bytes | bytearray):
        return given.hex()
    tag = str(facts.get("ETag", "")).strip('"')
    return tag if len(tag) == 32 else None


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
