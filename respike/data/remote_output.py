"""Remote output: a prepare run that writes to an address."""

import json
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from respike.common.errors import RespikeError
from respike.common.files import canonical_json
from respike.common.storage import RemoteFolder, is_address
from respike.data import index
from respike.data.output import CARD_NAME, LOCK_NAME, OURS, PART_LOCK, OutputState
from respike.data.plan import STATE_FOLDER, Part, ShardTask
from respike.data.prepare_config import PrepareConfig
from respike.data.shard_worker import mark_name
from respike.types import VideoListing

RENEW_SECONDS = 60.0
# five times over, so that a slow network or a clock that is a little off costs nobody the lock
EXPIRE_SECONDS = 300.0
_SETTLE_SECONDS = 1.0
# of this process: a lock that bears its number and is none of these was left by a run that lost the store
_held: set[str] = set()


class RemoteLock:
    """A lock that this process holds."""

    def __init__(self, folder: RemoteFolder, name: str, purpose: str) -> None:
        self._folder, self._name, self._purpose = folder, name, purpose
        self._id = uuid.uuid4().hex
        self._released = threading.Event()

    def check(self) -> None:
        """Raise RespikeError where another run has taken the lock, as after this one stood still for long."""
        owner = _read(self._folder, self._name)
        if owner.get("id") != self._id:
            raise RespikeError(
                f"{self._folder} was taken over by {_describe(owner)}",
                "let that run finish; what this one made is kept",
            )

    def take(self) -> None:
        """Take the lock, or raise RespikeError that names who holds it."""
        refuse_if_held(self._folder, self._name)
        self._write(free=False)
        time.sleep(_SETTLE_SECONDS)
        self.check()
        _held.add(self._id)
        threading.Thread(target=self._renew, daemon=True).start()

    def release(self) -> None:
        """Give the lock back, unless another run has it."""
        self._released.set()
        _held.discard(self._id)
        try:
            self.check()
            self._write(free=True)
        except RespikeError:
            # the store is gone, or the lock is another's: it expires by itself
            return

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                self.check()
                self._write(free=False)
            except RespikeError:
                # told by the next `check` of the run itself
                continue

    def _write(self, *, free: bool) -> None:
        owner = {"id": self._id, "pid": os.getpid(), "host": socket.gethostname(), "for": self._purpose}
        self._folder.write(self._name, json.dumps(owner | {"renewed": time.time(), "free": free}))


@contextmanager
def remote_lock(folder: RemoteFolder, name: str, purpose: str) -> Iterator[RemoteLock]:
    """Hold the lock `name` under `folder` for the length of the block. Raises RespikeError that names the owner."""
    lock = RemoteLock(folder, name, purpose)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def refuse_if_held(folder: RemoteFolder, name: str) -> None:
    """Raise RespikeError that names the owner where a living run holds the lock."""
    owner = _read(folder, name)
    if not owner or owner.get("free") or _is_dead(owner):
        return
    raise RespikeError(
        f"{folder} is in use: {_describe(owner)}",
        f"wait for it to finish; a run that was killed on another machine counts as dead after {EXPIRE_SECONDS:.0f} s",
    )


def _read(folder: RemoteFolder, name: str) -> dict[str, Any]:
    try:
        value = json.loads(folder.read(name) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_dead(owner: dict[str, Any]) -> bool:
    if owner.get("host") == socket.gethostname():
        pid = int(owner.get("pid", 0))
        if not psutil.pid_exists(pid) or (pid == os.getpid() and owner.get("id") not in _held):
            return True
    return time.time() - float(owner.get("renewed", 0)) > EXPIRE_SECONDS


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "another run"
    return f"process {owner.get('pid')} on {owner.get('host')} ({owner.get('for')})"


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

    def check_settings(self, listing: VideoListing, settings: PrepareConfig, *, retry: bool) -> None:
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
