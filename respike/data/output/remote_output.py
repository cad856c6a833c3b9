"""RemoteOutput: an output folder at a remote address. Its small files are worked on in a scratch folder here."""

import re
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from respike.addresses import is_address
from respike.data import index
from respike.data.building.plan import STATE_FOLDER, Part, ShardTask
from respike.data.building.work import mark_name
from respike.data.output.remote_lock import RemoteLock, refuse_if_held, remote_lock
from respike.data.output.state import CARD_NAME, LOCK_NAME, OURS, PART_LOCK, OutputState
from respike.data.remote.storage import RemoteFolder
from respike.data.settings import PrepareSettings
from respike.errors import RespikeError
from respike.files import canonical_json
from respike.sample import VideoListing

_DONE_FOLDER = f"{STATE_FOLDER}/done"
_LEFTOVER = re.compile(r"\..*\.tmp")


class RemoteOutput(OutputState):
    """The state of the output folder at `remote`, mirrored in the folder `scratch`.

    Shards go to the address from where they are built and never lie here; marks, settings and plan are read from there
    when the run begins, and written there as they change.
    """

    def __init__(self, remote: RemoteFolder, scratch: Path) -> None:
        super().__init__(scratch)
        self.name = str(remote)
        self.remote: RemoteFolder = remote
        self._sizes: dict[str, int] = {}
        self._held: RemoteLock | None = None

    def make(self) -> None:
        """Find out before an hour of decoding whether the address can be written to.

        Raises RespikeError where it cannot, or where files stand there that respike would write over.
        """
        foreign = sorted(name for name in self.remote.sizes() if OURS.fullmatch(name))
        if foreign and not self._settings.is_file():
            raise RespikeError(
                f"{self.name} holds {foreign[0]}, and respike keeps no record of having made it there",
                "give another --out; respike touches only what it wrote itself",
            )
        trial = f"{STATE_FOLDER}/writable-{uuid.uuid4().hex[:8]}"
        self.remote.write(trial, b"writable")
        self.remote.remove(trial)

    def pull(self, *folders: str) -> None:
        """Copy the small files of `folders` here."""
        for folder in folders:
            (self.out / folder).mkdir(parents=True, exist_ok=True)
            for name, content in self.remote.read_all(folder).items():
                (self.out / folder / name).write_bytes(content)

    @contextmanager
    def lock(self, part: Part | None = None) -> Iterator[None]:
        """Hold the folder, or a share of it, as well as a store allows; see `RemoteLock`."""
        own = LOCK_NAME if part is None else f"part-{part.number}-of-{part.count}.lock"
        purpose = "respike prepare" if part is None else f"respike prepare --part {part}"
        with ExitStack() as held:
            self._held = held.enter_context(remote_lock(self.remote, f"{STATE_FOLDER}/{own}", purpose))
            for name in self.remote.sizes(STATE_FOLDER):
                match = PART_LOCK.fullmatch(name)
                foreign_part = match is not None and (part is None or int(match[2]) != part.count)
                if foreign_part or (name == LOCK_NAME and part is not None):
                    refuse_if_held(self.remote, f"{STATE_FOLDER}/{name}")
            # only now: until it had the lock another run might have written
            self._sizes = self.remote.sizes()
            self.pull(STATE_FOLDER, _DONE_FOLDER)
            yield

    def check_settings(self, listing: VideoListing, settings: PrepareSettings, *, retry: bool) -> None:
        """Remember what the folder is made of, or refuse to mix two kinds of shards in it."""
        super().check_settings(listing, settings, retry=retry)
        self._push(self._settings)

    def write_plan(self, listing: VideoListing, tasks: Sequence[ShardTask]) -> None:
        """Remember which shards there are to be."""
        super().write_plan(listing, tasks)
        self._push(self._plan)

    def _push(self, path: Path) -> None:
        name = f"{STATE_FOLDER}/{path.name}"
        content = path.read_bytes()
        if self.remote.read(name) != content:
            self.remote.write(name, content)

    def size_of(self, name: str) -> int | None:
        """Bytes of a shard at the address; None where there is none."""
        return self._sizes.get(name)

    def drop_index(self) -> None:
        """Take the index away: what it names is about to change."""
        self.remote.remove(index.INDEX_NAME)

    def publish(self) -> None:
        """Write the index and what stands beside it to the address, the index last."""
        if self._held is not None:
            self._held.check()
        contents = {
            name: (self.out / name).read_bytes()
            for name in (index.VIDEOS_NAME, index.SKIPPED_NAME, CARD_NAME, index.INDEX_NAME)
        }
        if all(self.remote.read(name) == content for name, content in contents.items()):
            return
        self.drop_index()
        for name, content in contents.items():
            self.remote.write(name, content)

    def empty(self) -> None:
        """Remove all that respike wrote."""
        # the index first: what follows is no data set any more
        self.drop_index()
        for name in self.remote.sizes():
            if OURS.fullmatch(name):
                self.remote.remove(name)
        for name in [path.name for path in (self.folder / "done").iterdir()]:
            self.remote.remove(f"{STATE_FOLDER}/done/{name}")
        for path in (self._plan, self._settings):
            self.remote.remove(f"{STATE_FOLDER}/{path.name}")
        super().empty()
        self._sizes = {}

    def drop_strangers(self, names: Collection[str]) -> None:
        """Remove all but the shards `names`: what an earlier plan left, and halves of uploads that were cut off."""
        for name in self.remote.sizes():
            if index.SHARD_NAME.fullmatch(name) and name not in names:
                # the index first: it may still promise this one
                self.drop_index()
                self.remote.remove(name)
        for mark in list((self.folder / "done").iterdir()):
            name = mark.name.removesuffix(".json")
            if name not in names:
                self.remote.remove(mark_name(name))
                mark.unlink()
        for folder in ("", STATE_FOLDER, _DONE_FOLDER):
            for name in self.remote.sizes(folder):
                if _LEFTOVER.fullmatch(name):
                    self.remote.remove(f"{folder}/{name}".lstrip("/"))

    def log(self, record: dict[str, Any]) -> None:
        """Keep the record of a run, in a file of its own: a store cannot append."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.remote.write(f"{STATE_FOLDER}/runs/{stamp}-{uuid.uuid4().hex[:6]}.json", canonical_json(record))


@contextmanager
def open_output(out: Path | str) -> Iterator[OutputState]:
    """The state of the output folder at a path or at an address; what it keeps of an address ends with the block."""
    if not is_address(str(out)):
        yield OutputState(Path(out))
        return
    with tempfile.TemporaryDirectory(prefix="respike-") as scratch:
        output = RemoteOutput(RemoteFolder(str(out)), Path(scratch))
        output.pull(STATE_FOLDER)
        yield output
