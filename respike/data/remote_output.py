"""Remote output: a prepare run that writes to an address, and the lock that a store of objects allows."""

import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from respike.common.errors import RespikeError
from respike.common.files import INDEX_NAME, canonical_json
from respike.common.storage import RemoteFolder, is_address
from respike.data.index import CARD_NAME, MANIFEST_FOLDER, SKIPPED_NAME, STATE_FOLDER, VIDEOS_NAME
from respike.data.output import LOCK_NAME, PART_LOCK, PLAN_NAME, SETTINGS_NAME, OutputState, part_lock_name
from respike.data.plan import Part, ShardTask
from respike.data.prepare_config import PrepareConfig
from respike.types import VideoListing

RENEW_SECONDS = 60.0
# five renewals, so that no run loses its lock to a slow network or a slightly wrong clock
EXPIRE_SECONDS = 300.0
_LOG_FOLDER = f"{STATE_FOLDER}/runs"
# ids of the locks that this process holds; a lock with our process number but another id is from a dead process
_held_ids: set[str] = set()


@contextmanager
def open_output(out: Path | str) -> Iterator[OutputState]:
    """Yield the state of the output folder at a path or an address. Local copies of an address are then removed."""
    if not is_address(str(out)):
        yield OutputState(Path(out))
        return
    with tempfile.TemporaryDirectory(prefix="respike-") as scratch:
        output = RemoteOutput(RemoteFolder(str(out)), Path(scratch))
        output.download(STATE_FOLDER)
        yield output


class RemoteOutput(OutputState):
    """The output folder at an address. Its small files have copies in the local folder `scratch`.

    Shards are uploaded by the workers that build them. Manifests, settings and plan are downloaded when the run starts,
    and uploaded when they change.
    """

    def __init__(self, remote: RemoteFolder, scratch: Path) -> None:
        super().__init__(scratch)
        self.name = str(remote)
        self.remote: RemoteFolder = remote
        self._shard_sizes: dict[str, int] = {}
        self._lock: RemoteLock | None = None

    def file_names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder at the address, sorted."""
        return sorted(self.remote.file_sizes(folder))

    def remove(self, name: str) -> None:
        """Remove a file at the address and its copy here."""
        self.remote.remove(name)
        self._shard_sizes.pop(name, None)
        super().remove(name)

    def create(self) -> None:
        """Check that the address can be written to, before an hour of decoding.

        Raises SettingError if it holds files of others that respike would replace, RespikeError if the store refuses.
        """
        self._refuse_foreign_files()
        trial = f"{STATE_FOLDER}/writable-{uuid.uuid4().hex[:8]}"
        self.remote.write(trial, b"writable")
        self.remote.remove(trial)

    def download(self, *folders: str) -> None:
        """Copy the small files of `folders` here."""
        for folder in folders:
            (self.out / folder).mkdir(parents=True, exist_ok=True)
            for name, content in self.remote.read_all(folder).items():
                (self.out / folder / name).write_bytes(content)

    @contextmanager
    def lock(self, part: Part | None = None) -> Iterator[None]:
        """Hold the folder, or with `part` a share of it, for the length of the block; see `RemoteLock` for limits."""
        own_name = LOCK_NAME if part is None else part_lock_name(part)
        purpose = "respike prepare" if part is None else f"respike prepare, part {part}"
        with ExitStack() as held:
            self._lock = held.enter_context(remote_lock(self.remote, f"{STATE_FOLDER}/{own_name}", purpose))
            for name in self.file_names(STATE_FOLDER):
                match = PART_LOCK.fullmatch(name)
                is_other_part = match is not None and (part is None or int(match[2]) != part.count)
                if is_other_part or (name == LOCK_NAME and part is not None):
                    _refuse_if_held(self.remote, f"{STATE_FOLDER}/{name}")
            # only now: another run may have written until this one had the lock
            self._shard_sizes = self.remote.file_sizes()
            self.download(STATE_FOLDER, MANIFEST_FOLDER)
            yield

    def check_settings(self, listing: VideoListing, config: PrepareConfig, *, retry: bool) -> None:
        """Record what the folder is made from. Raises MismatchError if it was made from something else."""
        super().check_settings(listing, config, retry=retry)
        self._upload(SETTINGS_NAME)

    def write_plan(self, listing: VideoListing, tasks: Sequence[ShardTask]) -> None:
        """Record which shards are to be made."""
        super().write_plan(listing, tasks)
        self._upload(PLAN_NAME)

    def _upload(self, name: str) -> None:
        content = (self.out / name).read_bytes()
        if self.remote.read(name) != content:
            self.remote.write(name, content)

    def part_counts(self) -> set[int]:
        """Return the numbers of parts into which runs shared the folder, from the log of runs."""
        records = (_parse(content) for content in self.remote.read_all(_LOG_FOLDER).values())
        return {int(record["part"].partition("/")[2]) for record in records if record.get("part")}

    def shard_size(self, name: str) -> int | None:
        """Return the bytes of a shard at the address; None if there is none."""
        return self._shard_sizes.get(name)

    def publish(self) -> None:
        """Upload the index and the files beside it, the index last. Raises RespikeError if the lock was lost."""
        if self._lock is not None:
            self._lock.check()
        contents = {name: (self.out / name).read_bytes() for name in (VIDEOS_NAME, SKIPPED_NAME, CARD_NAME, INDEX_NAME)}
        if all(self.remote.read(name) == content for name, content in contents.items()):
            return
        self.remote.remove(INDEX_NAME)
        for name, content in contents.items():
            self.remote.write(name, content)

    def log_run(self, record: dict[str, Any]) -> None:
        """Add a record to the log of runs, as a file of its own: a store cannot append."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.remote.write(f"{_LOG_FOLDER}/{stamp}-{uuid.uuid4().hex[:6]}.json", canonical_json(record))


class RemoteLock:
    """A lock file at an address. It names its owner, who renews it every `RENEW_SECONDS` and removes it at the end.

    The store creates the file only if it does not exist, so that of two runs one gets the lock. This is certain for S3,
    Google and Azure storage, for folders of this machine and in memory. Other stores look first and then write.

    The rest is best effort. A lock whose owner is dead, or has not renewed it for `EXPIRE_SECONDS`, is removed and
    created again, and two runs might do so at the same moment. So the owner calls `check` before it publishes anything:
    of several owners, only the one that the file names goes on.
    """

    def __init__(self, folder: RemoteFolder, name: str, purpose: str) -> None:
        self._folder, self._name, self._purpose = folder, name, purpose
        self._id = uuid.uuid4().hex
        self._released = threading.Event()

    def acquire(self) -> None:
        """Take the lock. Raises RespikeError that names the owner if another run holds it."""
        if not self._folder.create(self._name, self._content()) and self._owner().get("id") != self._id:
            _refuse_if_held(self._folder, self._name)
            self._folder.remove(self._name)
            self._folder.create(self._name, self._content())
        if not self._owner():
            # the store damaged what was sent
            self._folder.write(self._name, self._content())
        self.check()
        _held_ids.add(self._id)
        threading.Thread(target=self._renew, daemon=True).start()

    def check(self) -> None:
        """Raise RespikeError if another run has taken the lock, for example while this process was stopped for long."""
        owner = self._owner()
        if owner.get("id") != self._id:
            raise RespikeError(
                f"{self._folder} was taken over by {_describe(owner)}",
                "let that run finish; the shards that this one made are kept",
            )

    def release(self) -> None:
        """Give the lock back, unless another run has it by now."""
        self._released.set()
        _held_ids.discard(self._id)
        try:
            self.check()
            self._folder.remove(self._name)
        except RespikeError:
            # the store is out of reach, and the lock will expire; or the lock belongs to another run
            return

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                self.check()
                self._folder.write(self._name, self._content())
            except RespikeError:
                # the run itself sees it at its next `check`
                continue

    def _owner(self) -> dict[str, Any]:
        return _parse(self._folder.read(self._name))

    def _content(self) -> str:
        owner = {"id": self._id, "pid": os.getpid(), "host": socket.gethostname(), "for": self._purpose}
        return json.dumps(owner | {"renewed": time.time()})


@contextmanager
def remote_lock(folder: RemoteFolder, name: str, purpose: str) -> Iterator[RemoteLock]:
    """Hold the lock file `name` under `folder` for the length of the block; see `RemoteLock`."""
    lock = RemoteLock(folder, name, purpose)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def _refuse_if_held(folder: RemoteFolder, name: str) -> None:
    """Raise RespikeError that names the owner if a living run holds the lock."""
    owner = _parse(folder.read(name))
    # older versions marked a released lock as free instead of removing it
    if not owner or owner.get("free") or _is_dead(owner):
        return
    raise RespikeError(
        f"{folder} is in use: {_describe(owner)}",
        f"wait for it to finish; a killed run on another machine counts as dead after {EXPIRE_SECONDS:.0f} s",
    )


def _parse(content: bytes | None) -> dict[str, Any]:
    """The JSON object in `content`; empty if there is none."""
    try:
        value = json.loads(content or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_dead(owner: dict[str, Any]) -> bool:
    if owner.get("host") == socket.gethostname():
        pid = int(owner.get("pid", 0))
        if not psutil.pid_exists(pid) or (pid == os.getpid() and owner.get("id") not in _held_ids):
            return True
    return time.time() - float(owner.get("renewed", 0)) > EXPIRE_SECONDS


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "another run"
    return f"process {owner.get('pid')} on {owner.get('host')} ({owner.get('for')})"
