"""What is there already: whether it is the file that is meant, and whose turn it is to fetch it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from respike.download.partial import Wanted, hash_with_progress
from respike.errors import DownloadError, RespikeError
from respike.files import write_atomically, write_error
from respike.progress import Progress


@contextmanager
def turn(target: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other process fetches the same file. The system frees the lock of a process that died."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress.say(f"waiting for another process that downloads {target.name}")
            lock.acquire()
    except OSError as error:
        raise write_error(target, error) from error
    try:
        yield
    finally:
        lock.release()


def is_there(target: Path, wanted: Wanted, progress: Progress) -> bool:
    """Whether the file is there. Raises DownloadError where it is another one than wanted, or has changed."""
    if not target.exists():
        return False
    wanted.refuse_length(target.stat().st_size, str(target))
    remembered = _recall(target)
    expected = wanted.sha256 or remembered
    sha256 = hash_with_progress(target, progress)
    if expected not in (None, sha256):
        known = "expected" if wanted.sha256 else "there when it was downloaded"
        raise DownloadError(
            f"{target} is not the file that was {known}: its SHA-256 is {sha256}, not {expected}",
            "remove it to have it downloaded again",
        )
    if remembered is None:
        with suppress(RespikeError):  # a folder that may only be read will do
            remember(target, sha256)
    return True


def _hash_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recall(target: Path) -> str | None:
    with suppress(OSError, ValueError):
        if match := re.match(r"[0-9a-f]{64}\b", _hash_path(target).read_text()):
            return match[0]
    return None


def remember(target: Path, sha256: str) -> None:
    """Keep the SHA-256 of a file that was downloaded beside it."""
    # in the form that `sha256sum --check` reads
    write_atomically(_hash_path(target), f"{sha256}  {target.name}\n")
