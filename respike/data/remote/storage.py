"""RemoteFolder: a folder at an address that fsspec reads and writes (`s3://`, `gs://`, `sftp://`), used with distrust.

What is written is checked before anybody is told that it stands; what fails is tried again and then one clear error.
"""

import base64
import hashlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from respike.addresses import open_address
from respike.errors import RespikeError

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
