"""A file half received: its bytes beside the target, and beside them of which file they are a part."""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from respike.download.incoming import Incoming
from respike.errors import DownloadError
from respike.files import canonical_json, sha256_of_file, sync_folder, write_atomically, write_error
from respike.progress import Progress

_QUICK_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is known of a file before it is fetched: its SHA-256 as 64 hex digits, its length, or neither."""

    sha256: str | None = None
    num_bytes: int | None = None

    def refuse_length(self, num_bytes: int, what: str) -> None:
        """Raise DownloadError where the length is another than the known one."""
        if self.num_bytes not in (None, num_bytes):
            raise DownloadError(
                f"{what} has {num_bytes:,} bytes, not the {self.num_bytes:,} that were expected",
                "another file stands there now; look at it before changing what is expected",
            )


class Partial:
    """The bytes received so far, in `.NAME.part`; they outlive the process, so that the next one goes on."""

    def __init__(self, target: Path, wanted: Wanted) -> None:
        self._target, self._wanted = target, wanted
        self.path = target.with_name(f".{target.name}.part")
        self._facts_path = target.with_name(f".{target.name}.part.json")
        self._facts = self._read_facts()
        if not self._facts:
            self.drop()
        self.was_continued = self.num_received > 0
        """Whether bytes of more than one connection are in it."""

    @property
    def num_received(self) -> int:
        """How many bytes are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def num_bytes(self) -> int | None:
        """How long the whole file is, as far as is known."""
        if self._wanted.num_bytes is not None:
            return self._wanted.num_bytes
        known = self._facts.get("num_bytes")
        return known if isinstance(known, int) else None

    @property
    def has_hash(self) -> bool:
        """Whether a wrong file will be told by its SHA-256."""
        return self._wanted.sha256 is not None

    @property
    def is_page(self) -> bool:
        """Whether the file is meant to be a web page."""
        return self._target.suffix.lower() in (".html", ".htm")

    def is_whole(self) -> bool:
        """Whether as many bytes are there as the file is known to have."""
        return bool(self._facts) and self.num_bytes is not None and self.num_received == self.num_bytes

    def version_at(self, address: str) -> str | None:
        """The version that was begun at this address; None where another address gave the bytes or told no version.

        Drops what is there where it can neither be continued by version nor told wrong by a hash in the end.
        """
        version = self._facts.get("version") if self._facts.get("address") == address else None
        too_long = self.num_bytes is not None and self.num_received > self.num_bytes
        if too_long or (self.num_received and version is None and self._wanted.sha256 is None):
            self.drop()
        return version if isinstance(version, str) else None

    def drop(self) -> None:
        """Remove what was received."""
        self.path.unlink(missing_ok=True)
        self._facts_path.unlink(missing_ok=True)
        self._facts = {}
        self.was_continued = False

    def receive(self, incoming: Incoming, address: str) -> IO[bytes]:
        """Open the file for the bytes of `incoming`, at the place where they belong.

        Raises DownloadError where the file has another length than expected or does not fit the disk.
        """
        if incoming.num_bytes is not None:
            self._wanted.refuse_length(incoming.num_bytes, address)
            free = shutil.disk_usage(self._target.parent).free
            if incoming.num_bytes - incoming.offset > free:
                raise DownloadError(
                    f"{self._target.name} needs {incoming.num_bytes - incoming.offset:,} bytes more, and "
                    f"{self._target.parent} has {free:,} free",
                    "free space, then run the same command again",
                )
        self._facts = {"address": address, "version": incoming.version, "num_bytes": incoming.num_bytes}
        write_atomically(self._facts_path, canonical_json(self._facts))
        self.was_continued = incoming.offset > 0
        try:
            file = self.path.open("r+b" if incoming.offset else "wb")
            file.seek(incoming.offset)
            file.truncate()
        except OSError as error:
            raise write_error(self.path, error) from error
        return file

    def finish(self, progress: Progress) -> str | None:
        """Check the bytes, give them the target's name and return their SHA-256; None, and nothing left, if wrong."""
        sha256 = hash_with_progress(self.path, progress)
        if self._wanted.sha256 not in (None, sha256):
            self.drop()
            return None
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        # rename last: what has the target's name is whole and checked
        self.path.replace(self._target)
        sync_folder(self._target.parent)
        self._facts_path.unlink(missing_ok=True)
        return sha256

    def _read_facts(self) -> dict[str, object]:
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads(self._facts_path.read_text())
            if isinstance(facts, dict):
                return facts
        return {}


def hash_with_progress(path: Path, progress: Progress) -> str:
    """SHA-256 of a file, as 64 hex digits; one that takes seconds is told."""
    num_bytes = path.stat().st_size
    if num_bytes < _QUICK_BYTES:
        return sha256_of_file(path)
    with progress.task(f"check {path.name}", total=num_bytes, unit="bytes") as task:
        return sha256_of_file(path, task.advance)
