"""Storage: which addresses may be opened, and folders at addresses, through fsspec."""

import base64
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from respike.common.errors import RespikeError

PROTOCOLS_VARIABLE = "RESPIKE_PROTOCOLS"
# stores that only move bytes. Left out are protocols that wrap another address (simplecache, reference), open archives
# (zip), or read through a program or a machine that runs code (git, github, dask, jupyter)
PROTOCOLS = (
    *("https", "http", "hf"),
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos"),
    *("sftp", "ssh", "ftp", "smb", "webdav", "hdfs", "webhdfs"),
    *("file", "local", "memory"),
)
_WEB = ("http", "https")
THIS_MACHINE = frozenset(["file", "local", "memory"])

MAX_ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
_CHUNK_BYTES = 8 << 20
# errors that a retry does not cure
_FINAL_ERRORS = (PermissionError, NotImplementedError, NotADirectoryError)
# in an object store a file appears whole or not at all; elsewhere a reader could see half a file
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "hf", "r2"}
# file systems on which a rename does not replace an existing file
_RENAME_KEEPS_TARGET = {"webhdfs", "smb"}


T = TypeVar("T")


def protocol_of(address: str) -> str:
    """The part before the first colon, in lower case; "" for a path on this machine.

    Anything that looks like an address counts as one, so that `pipe:` is refused and not taken for a path.
    """
    scheme = address.partition(":")[0]
    # a single letter is a drive
    is_scheme = len(scheme) > 1 and scheme.isascii() and scheme[0].isalpha() and ":" in address
    return scheme.lower() if is_scheme and all(each.isalnum() or each in "+-." for each in scheme) else ""


def is_address(path: str) -> bool:
    """Whether `path` is an address and not a path on this machine."""
    return bool(protocol_of(path))


def is_web(address: str) -> bool:
    """Whether an address is read by HTTP."""
    return protocol_of(address) in _WEB


def check_address(address: str) -> None:
    """Raise RespikeError, which lists the allowed protocols, on any other address: `pipe:`, `git://`, `a::s3://…`.

    RESPIKE_PROTOCOLS may name further protocols of fsspec, separated by spaces.
    """
    protocol = protocol_of(address)
    allowed = (*PROTOCOLS, *os.environ.get(PROTOCOLS_VARIABLE, "").lower().split())
    # in a web address, `::` belongs to an IPv6 host or to the path, and fsspec does not follow it
    is_chain = "::" in address and not is_web(address)
    if protocol and (protocol not in allowed or is_chain or "://" not in address):
        raise RespikeError(
            f"{without_password(address)!r} is no address that respike opens; allowed are a path and "
            f"{', '.join(f'{each}://' for each in allowed)}",
            f"write ./ before a path of that name; name another protocol that you trust in {PROTOCOLS_VARIABLE}",
        )


def open_address(address: str) -> tuple["fsspec.AbstractFileSystem", str]:
    """The file system of an address, or of a path on this machine, and the path on that file system.

    Raises RespikeError as `check_address` does, and if the address needs a package that is missing.
    """
    check_address(address)
    if not is_address(address):
        system = fsspec.filesystem("file")
        return system, str(system._strip_protocol(address))
    protocol = protocol_of(address)
    # fsspec knows protocols in lower case only
    address = protocol + address[len(protocol) :]
    try:
        if is_web(address):
            return fsspec.filesystem(protocol), address
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise RespikeError(
            f"{without_password(address)!r} cannot be opened: {error}",
            "install that package, then run the same command again",
        ) from error
    except ValueError as error:
        raise RespikeError(
            f"{without_password(address)!r} cannot be opened: {error}",
            "give a path, or an address such as s3://bucket/folder or hf://datasets/owner/name",
        ) from error
    return system, str(path)


def without_password(address: str) -> str:
    """The address without user name and password, to be shown."""
    if "@" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class RemoteFolder:
    """Files under one address, by name. It can be pickled and sent to workers.

    Its methods raise RespikeError in one line if the address is not allowed, or if an operation fails `MAX_ATTEMPTS`
    times.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._system, self._root = open_address(self.address)
        protocols = self._system.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._is_object_store = bool(names & _OBJECT_STORES)
        self._rename_keeps_target = bool(names & _RENAME_KEEPS_TARGET)

    def __str__(self) -> str:
        return self.address

    @property
    def is_in_process_memory(self) -> bool:
        """Whether only this process sees the files, as in fsspec's memory file system."""
        return isinstance(self._system, fsspec.get_filesystem_class("memory"))

    def file_sizes(self, folder: str = "") -> dict[str, int]:
        """Names of the files directly in `folder`, with their bytes; empty if there is no such folder."""

        def attempt() -> dict[str, int]:
            self._system.invalidate_cache()
            try:
                entries = self._system.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries if entry["type"] == "file"}

        return self._retry(attempt, f"list {folder or 'files'}")

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if there is no such file."""

        def attempt() -> bytes | None:
            self._system.invalidate_cache()
            try:
                return bytes(self._system.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

        return self._retry(attempt, f"read {name}")

    def read_all(self, folder: str) -> dict[str, bytes]:
        """The contents of the small files directly in `folder`, by name; read in parallel where the store can."""
        names = sorted(self.file_sizes(folder))
        if not names:
            return {}
        paths = [self._path(f"{folder}/{name}") for name in names]

        def attempt() -> dict[str, bytes]:
            # a file that was removed since the listing is left out; any other failure is not taken for that
            found = self._system.cat(paths, on_error="return")
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
            return {
                path.rsplit("/", 1)[-1]: bytes(content)
                for path, content in found.items()
                if not isinstance(content, Exception)
            }

        return self._retry(attempt, f"read {folder}")

    def write(self, name: str, content: bytes | str) -> None:
        """Write a small file, then read it back and compare."""
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content

        def attempt() -> None:
            self._store(name, lambda path: self._system.pipe_file(path, data))
            if self.read(name) != data:
                raise _DifferentContentError(f"{name} differs from what was written")

        self._retry(attempt, f"write {name}")

    def create(self, name: str, content: str) -> bool:
        """Write a small file unless one exists; return whether it was written.

        Of several processes that try at once, one succeeds on stores that have conditional writes; other stores look
        first and then write. False may also mean that an attempt whose answer was lost has written the file.
        """
        path, data = self._path(name), content.encode("utf-8", "surrogateescape")

        def attempt() -> bool:
            try:
                if not self._is_object_store:
                    self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
                if type(self._system) is LocalFileSystem:
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

        return self._retry(attempt, f"write {name}")

    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine to `name`, then compare its size and checksum."""
        num_bytes = path.stat().st_size

        def attempt() -> None:
            self._store(name, lambda target: self._system.put_file(str(path), target))
            self._check_upload(path, name, num_bytes)

        self._retry(attempt, f"write {name}")

    def download(self, name: str, path: Path) -> str:
        """Copy the file `name` to `path`; return the SHA-256 of the bytes received."""

        def attempt() -> str:
            digest = hashlib.sha256()
            with self._system.open(self._path(name), "rb") as source, path.open("wb") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            return digest.hexdigest()

        return self._retry(attempt, f"read {name}")

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._system.rm_file(self._path(name))

        self._retry(attempt, f"remove {name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _store(self, name: str, put: Callable[[str], Any]) -> None:
        """Put a file under its name: directly in an object store, elsewhere under a temporary name first."""
        path = self._path(name)
        if self._is_object_store:
            put(path)
            return
        folder, _, last = path.rpartition("/")
        self._system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            put(temporary)
            if self._rename_keeps_target:
                with suppress(FileNotFoundError):
                    self._system.rm_file(path)
            self._system.mv(temporary, path)
        except BaseException:
            # the first error counts, whatever comes of this
            with suppress(Exception):
                self._system.rm_file(temporary)
            raise

    def _check_upload(self, path: Path, name: str, num_bytes: int) -> None:
        self._system.invalidate_cache()
        facts = self._system.info(self._path(name))
        if facts["size"] != num_bytes:
            raise _DifferentContentError(f"{name} has {facts['size']:,} bytes in the store, {num_bytes:,} were sent")
        if (md5 := _md5_of(facts)) is not None and md5 == _hash(path, "md5"):
            return
        # the store gives no checksum, or one of another kind
        digest = hashlib.sha256()
        with self._system.open(self._path(name), "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != _hash(path, "sha256"):
            raise _DifferentContentError(f"{name} differs from what was sent")

    def _retry(self, attempt: Callable[[], T], what: str) -> T:
        """Retry, after growing pauses, what a network failure may break; then report the failure in one line."""
        for number in range(1, MAX_ATTEMPTS + 1):
            try:
                return attempt()
            except RespikeError:
                raise
            # each store has exceptions of its own, without a common base class
            except Exception as error:
                if number == MAX_ATTEMPTS or isinstance(error, _FINAL_ERRORS):
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                    raise RespikeError(
                        f"cannot {what} under {self.address}: {reason}",
                        "check the address, the credentials and the network, then run the same command again",
                    ) from error
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (number - 1))
        raise AssertionError("the last attempt returns or raises")


class _DifferentContentError(Exception):
    """The content in the store differs from what was sent."""


def _md5_of(facts: dict[str, Any]) -> str | None:
    """The MD5 that a store gives for an object, as hex digits; None if it gives none."""
    if isinstance(given := facts.get("md5Hash") or facts.get("content_md5"), str):
        return base64.b64decode(given).hex()
    if isinstance(given, bytes | bytearray):
        return given.hex()
    tag = str(facts.get("ETag", "")).strip('"')
    return tag if len(tag) == 32 else None


def _hash(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
