"""ShardCache: shards of a remote set on this machine, each kept under its SHA-256, so that no other can pass for it."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock

from respike.data import index
from respike.data.index import DatasetIndex, ShardRow, read_index
from respike.data.remote.storage import RemoteFolder
from respike.errors import RespikeError, ShardError
from respike.files import cache_folder, sha256_of_bytes, write_atomically

_PLAIN_NAME = re.compile(r"\w[\w.-]*\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# the network is what is waited for, not this machine
_NUM_DOWNLOADS = 8


class ShardCache:
    """The shards of the set at a remote address, downloaded when first asked for. It pickles, to loader workers.

    A file takes its place in the cache only once its SHA-256 is the one that the index gives; a shard that changed
    has another, and so another place. Other users can neither read nor write what lies here.
    """

    def __init__(self, address: str) -> None:
        self._remote = RemoteFolder(address)
        self.folder = cache_folder("shards")

    def read_index(self) -> DatasetIndex:
        """The index as it stands at the address now.

        Raises ShardError where there is none, it is damaged, or it names what no shard is called.
        """
        root = self.folder / "indexes" / sha256_of_bytes(self._remote.address.encode())[:32]
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / "lock"):
            for name in (index.INDEX_NAME, index.VIDEOS_NAME):
                if (content := self._remote.read(name)) is None:
                    raise ShardError(
                        f"there is no {name} at {self._remote}", "give the address that was the --out of a finished run"
                    )
                write_atomically(root / name, content)
            found = read_index(root)
            # not every copy of a set has it; an older one must not stand for it
            skipped = self._read_optional(index.SKIPPED_NAME) if found.num_skipped else None
            if skipped is None:
                (root / index.SKIPPED_NAME).unlink(missing_ok=True)
            else:
                write_atomically(root / index.SKIPPED_NAME, skipped)
        for row in found.shards:
            # both become parts of a path
            if not _PLAIN_NAME.fullmatch(row.name) or not _SHA256.fullmatch(row.sha256):
                raise ShardError(f"the index at {self._remote} names {row.name!r}, which is no shard", _FOREIGN)
        return found

    def _read_optional(self, name: str) -> bytes | None:
        """The content of a file that may be missing; some stores say of a missing one that it is forbidden."""
        try:
            return self._remote.read(name)
        except RespikeError:
            return None

    def fetch(self, rows: Sequence[ShardRow]) -> None:
        """Download those of `rows` that are not here, several at a time."""
        with ThreadPoolExecutor(_NUM_DOWNLOADS) as pool:
            # the list, so that an error in a thread is raised here
            list(pool.map(self.path, rows))

    def path(self, row: ShardRow) -> Path:
        """Where a shard lies on this machine, downloaded if it must be.

        Raises ShardError where what stands at the address is not what the index says.
        """
        target = self.folder / row.sha256 / row.name
        if target.is_file() and target.stat().st_size == row.num_bytes:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # of several processes that want one shard, one downloads it
        with filelock.FileLock(target.parent / "lock"):
            if target.is_file() and target.stat().st_size == row.num_bytes:
                return target
            partial = target.with_name(f".{row.name}.tmp")
            try:
                sha256 = self._remote.download(row.name, partial)
                if sha256 != row.sha256:
                    raise ShardError(
                        f"{self._remote}/{row.name} holds {partial.stat().st_size:,} bytes of SHA-256 {sha256[:12]}…, "
                        f"the index says {row.num_bytes:,} of {row.sha256[:12]}…",
                        "run the `respike prepare` that made it again",
                    )
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        return target


_FOREIGN = "respike did not write it; do not use this set unless you trust where it is from"
