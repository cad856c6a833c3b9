"""zip and tar: plain files and folders, member by member, into a folder and nowhere else."""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from respike.errors import RespikeError
from respike.progress import Task

# a bomb unpacks to thousands of times its size; videos hardly shrink and lists do not matter
_MOST_GROWTH = 20
_FREE_GROWTH_BYTES = 64 << 20
MOST_MEMBERS = 1_000_000
_CHUNK_BYTES = 1 << 20
_REFUSED = "the archive is damaged or made to harm; remove it and fetch it again"


class ArchiveError(RespikeError):
    """An archive that is damaged, or that would write outside its folder, make links, or fill the disk."""


def most_bytes(archive: Path) -> int:
    """How much an archive may unpack to."""
    return archive.stat().st_size * _MOST_GROWTH + _FREE_GROWTH_BYTES


def checked_path(name: str, archive: Path) -> PurePosixPath:
    """The path of a member, under the folder that is unpacked to. Raises ArchiveError where it leads out of it."""
    path = PurePosixPath(name)
    # a backslash or a drive would lead out on other systems, and no data set has one
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
        raise ArchiveError(f"{archive} holds {name!r}, which leads out of its folder", _REFUSED)
    return path


def unpack_zip(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a zip file into `folder`. Raises ArchiveError; nothing outside `folder` is touched."""
    try:
        with zipfile.ZipFile(archive) as file:
            budget = _Budget(archive, task)
            for member in file.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ArchiveError(f"{archive} holds {member.filename!r}, which is no plain file", _REFUSED)
                path = folder / checked_path(member.filename, archive)
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                with file.open(member) as source:
                    budget.write(source, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(archive, error) from error


def unpack_tar(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a tar file, compressed or not, into `folder`. Raises ArchiveError; nothing outside `folder` is touched."""
    try:
        with tarfile.open(archive, "r:*") as file:
            budget = _Budget(archive, task)
            for member in file:
                path = folder / checked_path(member.name, archive)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                source = file.extractfile(member) if member.isreg() else None
                if source is None:
                    raise ArchiveError(f"{archive} holds {member.name!r}, which is no plain file", _REFUSED)
                with source:
                    budget.write(source, path)
                # tarfile keeps every member it has read
                file.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise _damaged(archive, error) from error


class _Budget:
    """Writes members, and stops an archive that unpacks to more than any data set would."""

    def __init__(self, archive: Path, task: Task) -> None:
        self._archive, self._task = archive, task
        self._num_bytes, self._num_members = most_bytes(archive), MOST_MEMBERS

    def write(self, source: IO[bytes], path: Path) -> None:
        """Write one member to `path`."""
        self._num_members -= 1
        self._check()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in _chunks(source):
                self._num_bytes -= len(chunk)
                self._check()
                file.write(chunk)
                self._task.advance(len(chunk))

    def _check(self) -> None:
        if self._num_bytes < 0 or self._num_members < 0:
            raise ArchiveError(f"{self._archive} unpacks to more than a data set would", _REFUSED)


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _damaged(archive: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{archive} cannot be unpacked: {error}", _REFUSED)
