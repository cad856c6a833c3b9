"""Shards: one tar of samples, written whole or not at all, and read by position."""

import hashlib
import mmap
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from respike.errors import ShardError


@dataclass(frozen=True)
class WriterMark:
    """A place between two samples to which a ShardWriter can go back."""

    num_samples: int
    offset: int
    digest: "hashlib._Hash"


class ShardWriter:
    """Writes samples to an open file as a deterministic tar: no times, owners or modes of this machine."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._offset = 0
        self.num_samples = 0

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append one sample."""
        for name, content in members.items():
            header = tarfile.TarInfo(f"{key}.{name}")
            header.size = len(content)
            header.mode = 0o644
            self._write(header.tobuf(tarfile.USTAR_FORMAT))
            self._write(content)
            self._write(bytes(-len(content) % tarfile.BLOCKSIZE))
        self.num_samples += 1

    def mark(self) -> WriterMark:
        """The place where the next sample goes, to come back to it."""
        return WriterMark(self.num_samples, self._offset, self._digest.copy())

    def rollback(self, mark: WriterMark) -> None:
        """Take back all that was added after `mark`, as if it had never been."""
        self._file.seek(mark.offset)
        self._file.truncate()
        self.num_samples, self._offset, self._digest = mark.num_samples, mark.offset, mark.digest.copy()

    def close(self) -> tuple[int, str]:
        """End the tar; return its size in bytes and its SHA-256."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self._offset + end) % tarfile.RECORDSIZE))
        return self._offset, self._digest.hexdigest()

    def _write(self, content: bytes) -> None:
        # hashed on the way, so that a shard is not read again for its checksum
        self._digest.update(content)
        self._offset += len(content)
        self._file.write(content)


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


class _PlainMember(tarfile.TarInfo):
    """A member as `ShardWriter` writes it: a regular file with a plain header.

    What tarfile would act upon before it hands a member out ends here: long names, pax records and sparse maps, which
    may name, place and size a member otherwise than its header, and sizes below zero, which lead back.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_PlainMember":
        member = super().frombuf(buf, encoding, errors)
        if member.type != tarfile.REGTYPE or member.size < 0:
            raise _ForeignMemberError(member.name)
        return member


class _ForeignMemberError(Exception):
    """A member that no shard holds; the text is its name."""


class ShardReader:
    """Samples of one local shard by position, through a memory map. Members are read, never extracted.

    Raises ShardError on opening for what respike never writes: links, devices, folders, extended headers, a repeated
    name, a sample whose members do not stand together, a path in a name; and where the tar ends within a member.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[str] = []
        self._samples: list[list[_Member]] = []
        self._read_table()
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self.keys)

    def members(self, position: int) -> dict[str, bytes]:
        """The members of the sample at `position`, by name."""
        return {m.name: self._map[m.offset : m.offset + m.size] for m in self._samples[position]}

    def member_sizes(self, position: int) -> dict[str, int]:
        """Bytes of each member of the sample at `position`, by name."""
        return {member.name: member.size for member in self._samples[position]}

    def _read_table(self) -> None:
        seen: set[str] = set()
        try:
            with tarfile.open(self.path, mode="r:", tarinfo=_PlainMember) as tar:
                for header in tar:
                    self._add(header, seen)
        except _ForeignMemberError as error:
            raise self._foreign(str(error)) from None
        except (tarfile.TarError, OSError, ValueError) as error:
            raise ShardError(f"{self.path} is no shard: {error}", _REBUILD) from error

    def _foreign(self, name: str) -> ShardError:
        return ShardError(f"{self.path.name} holds {name!r}, which is no member of a sample", _FOREIGN)

    def _add(self, header: tarfile.TarInfo, seen: set[str]) -> None:
        key, _, name = header.name.partition(".")
        if not key or not name or "/" in header.name or "\\" in header.name:
            raise self._foreign(header.name)
        if not self.keys or self.keys[-1] != key:
            if key in seen:
                raise ShardError(f"{self.path.name}: the members of sample {key!r} do not stand together", _FOREIGN)
            seen.add(key)
            self.keys.append(key)
            self._samples.append([])
        if any(member.name == name for member in self._samples[-1]):
            raise ShardError(f"{self.path.name} holds {header.name!r} twice", _FOREIGN)
        self._samples[-1].append(_Member(name, header.offset_data, header.size))


_REBUILD = "`respike verify --repair` on its folder drops it, the same `respike prepare` then makes just that again"
_FOREIGN = "respike did not write this shard; do not use it unless you trust where it is from"
