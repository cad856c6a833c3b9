"""RemoteLock: a lock in a store that has none, by a file that names its owner and tells that it lives. Best effort.

A store offers no step that only one of two can take. So a run writes who it is, waits, and reads whether that still
stands; while it works it renews the file. Two runs that start within the same moment, on a store that shows one's
write to the other late, may both go on: then both write the same bytes under the same names.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from respike.data.remote.storage import RemoteFolder
from respike.errors import RespikeError

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
