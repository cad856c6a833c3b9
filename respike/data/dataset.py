"""Dataset: the clips of a set of shards by number, in a local folder or at a remote address."""

import re
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from respike.common.errors import RespikeError, ShardError
from respike.common.files import INDEX_NAME, cache_folder, file_lock, sha256_of_bytes, write_atomically
from respike.common.processes import raise_file_limit
from respike.common.storage import RemoteFolder, is_address
from respike.data import index
from respike.data.index import DatasetIndex, ShardRow, read_index
from respike.data.shard import ShardReader, read_sample
from respike.types import DataSpec, EventClip

_PLAIN_NAME = re.compile(r"\w[\w.-]*\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# downloads wait for the network and not for this machine
_NUM_DOWNLOADS = 8
# an open shard takes an open file; a training has two datasets, and files of its own
_OPEN_SHARDS_SHARE = 8
MIN_OPEN_SHARDS = 4


class ShardCache:
    """Local copies of the shards at a remote address, downloaded on first use. It can be pickled to loader workers.

    A shard is kept under the SHA-256 that the index gives, and only if it has that SHA-256. Other users can neither
    read nor write the cache.
    """

    def __init__(self, address: str) -> None:
        self._remote = RemoteFolder(address)
        self.folder = cache_folder("shards")

    def read_index(self) -> DatasetIndex:
        """Read the current index at the address.

        Raises ShardError where there is none, it is damaged, or it names a file that cannot be a shard.
        """
        root = self.folder / "indexes" / sha256_of_bytes(self._remote.address.encode())[:32]
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(root / "lock"):
            for name in (INDEX_NAME, index.VIDEOS_NAME):
                if (content := self._remote.read(name)) is None:
                    raise ShardError(
                        f"there is no {name} at {self._remote}",
                        "give the address to which a finished `respike prepare` wrote",
                    )
                write_atomically(root / name, content)
            found = read_index(root)
            # not every copy has this file; an old local one must not replace it
            skipped = self._read_optional(index.SKIPPED_NAME) if found.num_skipped else None
            if skipped is None:
                (root / index.SKIPPED_NAME).unlink(missing_ok=True)
            else:
                write_atomically(root / index.SKIPPED_NAME, skipped)
        for row in found.shards:
            # both become part of a path
            if not _PLAIN_NAME.fullmatch(row.name) or not _SHA256.fullmatch(row.sha256):
                raise ShardError(f"the index at {self._remote} names {row.name!r}, which cannot be a shard", _FOREIGN)
        return found

    def _read_optional(self, name: str) -> bytes | None:
        """Read a file that may be missing; some stores answer that a missing file is forbidden."""
        try:
            return self._remote.read(name)
        except RespikeError:
            return None

    def fetch(self, rows: Sequence[ShardRow]) -> None:
        """Download those of `rows` that are not in the cache, several at a time."""
        with ThreadPoolExecutor(_NUM_DOWNLOADS) as pool:
            # list() raises the errors of the threads here
            list(pool.map(self.path, rows))

    def path(self, row: ShardRow) -> Path:
        """Return the local path of a shard; download it first where needed.

        Raises ShardError where the file at the address is not the one that the index describes.
        """
        target = self.folder / row.sha256 / row.name
        if target.is_file() and target.stat().st_size == row.num_bytes:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # only one of several processes downloads a shard
        with file_lock(target.parent / "lock"):
            if target.is_file() and target.stat().st_size == row.num_bytes:
                return target
            partial = target.with_name(f".{row.name}.tmp")
            try:
                sha256 = self._remote.download(row.name, partial)
                if sha256 != row.sha256:
                    raise ShardError(
                        f"{self._remote}/{row.name} holds {partial.stat().st_size:,} bytes of SHA-256 {sha256[:12]}…, "
                        f"the index says {row.num_bytes:,} of {row.sha256[:12]}…",
                        "run the `respike prepare` that made it once more",
                    )
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        return target


_FOREIGN = "respike did not write it; do not use these shards unless you trust their origin"


@dataclass(frozen=True)
class ClipRow:
    """Where a clip is, and its label, as the index says: `position` is its place in shard number `shard`."""

    video: str
    label: int
    group: str | None
    subset: str
    clip_index: int
    shard: int
    position: int


class ShardDataset:
    """Clips of a set of shards: `len(dataset)`, `dataset[i]` → EventClip, `dataset.clips[i]` → ClipRow.

    Shards are opened on first use, and as many stay open as the limit of open files allows. Samples are read by
    position, so every order costs the same. It can be pickled to loader workers, without its open files.
    """

    def __init__(self, index: DatasetIndex, clips: Sequence[ClipRow], cache: ShardCache | None = None) -> None:
        self.index = index
        self.clips = clips
        self._cache = cache
        self._readers: dict[int, ShardReader] = {}
        # those whose file is open, in the order of their last use
        self._open_readers: dict[int, ShardReader] = {}
        self._max_open = max(MIN_OPEN_SHARDS, raise_file_limit() // _OPEN_SHARDS_SHARE)

    @property
    def spec(self) -> DataSpec:
        """From what data and with which settings the shards were made."""
        return self.index.spec

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> EventClip:
        row = self.clips[number]
        reader = self._reader(row.shard)
        clip = read_sample(reader, row.position, self.spec.settings)
        self._check(row, clip)
        return clip

    def __iter__(self) -> Iterator[EventClip]:
        return (self[number] for number in range(len(self)))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_readers": {}, "_open_readers": {}}

    def member_sizes(self, number: int) -> dict[str, int]:
        """Return the bytes that each member of the sample of clip `number` takes, by name."""
        row = self.clips[number]
        return self._reader(row.shard).member_sizes(row.position)

    def _reader(self, shard: int) -> ShardReader:
        """Return the reader of a shard. Close the file of another one if too many would be open."""
        self._open_readers.pop(shard, None)
        if len(self._open_readers) >= self._max_open:
            self._open_readers.pop(next(iter(self._open_readers))).close()
        if shard not in self._readers:
            self._readers[shard] = self._open(self.index.shards[shard])
        self._open_readers[shard] = self._readers[shard]
        return self._readers[shard]

    def _open(self, row: ShardRow) -> ShardReader:
        path = self._cache.path(row) if self._cache else self.index.root / row.name
        if not path.is_file():
            raise ShardError(f"the shard {path} is missing", self._hint)
        if path.stat().st_size != row.num_bytes:
            raise ShardError(
                f"{path} holds {path.stat().st_size:,} bytes, the index says {row.num_bytes:,}", self._hint
            )
        reader = ShardReader(path)
        if len(reader) != row.num_samples:
            raise ShardError(f"{path} holds {len(reader)} samples, the index says {row.num_samples}", self._hint)
        return reader

    @property
    def _hint(self) -> str:
        """The next step where a shard is damaged."""
        if self._cache:
            return f"delete {self._cache.folder}, then it is downloaded again"
        return (
            f"`respike verify {shlex.quote(str(self.index.root))} --repair` removes damaged shards, the same "
            "`respike prepare` then makes them again"
        )

    def _check(self, row: ClipRow, clip: EventClip) -> None:
        """Raise ShardError where a sample contradicts the index: a wrong label must not reach the network."""
        found = (clip.info.video, clip.info.label, clip.info.clip_index)
        expected = (row.video, row.label, row.clip_index)
        if found != expected:
            raise ShardError(f"sample {clip.key} says {found}, the index says {expected}", self._hint)

    def select(self, numbers: Sequence[int]) -> "ShardDataset":
        """Return the part with the clips of these numbers, in this order."""
        return ShardDataset(self.index, [self.clips[number] for number in numbers], self._cache)

    def hold_out(self, fraction: float = 0.1, seed: int = 0) -> tuple["ShardDataset", "ShardDataset"]:
        """Hold out about `fraction` of the sources of each class; return (the rest, the part held out).

        A source is the video's group where the dataset has groups, else the video. All clips of a source are in the
        same part. At least one source of a class is held out, except where the class has only one, or where `fraction`
        is 0.
        """
        sources: dict[int, list[str]] = {}
        for row in self.clips:
            known = sources.setdefault(row.label, [])
            if (source := row.group or row.video) not in known[-1:]:
                known.append(source)
        held: set[str] = set()
        for label, names in sorted(sources.items()):
            distinct = sorted(set(names))
            count = min(max(1, round(fraction * len(distinct))), len(distinct) - 1) if fraction > 0 else 0
            order = np.random.default_rng([seed, label]).permutation(len(distinct))
            held.update(distinct[place] for place in order[:count])
        parts: tuple[list[int], list[int]] = ([], [])
        for number, row in enumerate(self.clips):
            parts[(row.group or row.video) in held].append(number)
        return self.select(parts[0]), self.select(parts[1])


def open_shards(path: str | Path, subset: str | None = None) -> ShardDataset:
    """Open the shards that `respike prepare` wrote to `path`, a folder or an fsspec address (`s3://`, `hf://`, …).

    `subset` is train, val or test; None takes all. Remote shards are first copied to the cache of this machine, unless
    they are there already, and checked against the checksums of the index. Raises ShardError where there is no valid
    index, and RespikeError where `subset` does not exist. Addresses that start a program or wrap another one (`pipe:`,
    `simplecache::`) are refused with RespikeError.
    """
    cache = ShardCache(str(path)) if is_address(str(path)) else None
    index = cache.read_index() if cache else read_index(Path(path))
    subsets = sorted({shard.subset for shard in index.shards})
    if subset is not None and subset not in subsets:
        raise RespikeError(f"{path} has no subset {subset!r}", f"choose from {', '.join(subsets)}")
    numbers = {shard.name: number for number, shard in enumerate(index.shards)}
    filled = [0] * len(index.shards)
    rows: list[ClipRow] = []
    for video in index.videos:
        shard = numbers[video.shard]
        first, filled[shard] = filled[shard], filled[shard] + video.num_clips
        if subset in (None, video.subset):
            rows.extend(
                ClipRow(video.video, video.label, video.group, video.subset, clip, shard, first + clip)
                for clip in range(video.num_clips)
            )
    if cache:
        # the whole subset now, and not during the first epoch
        cache.fetch([index.shards[shard] for shard in sorted({row.shard for row in rows})])
    return ShardDataset(index, rows, cache)
