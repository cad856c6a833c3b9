"""Files: atomic writes, folder locks, checksums, the user cache."""

import errno
import fcntl
import hashlib
import json
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import filelock

from respike.common import failpoints
from respike.common.errors import RespikeError

# the folders, relative to the current one, under which shards and runs are made and found by default
SHARDS_ROOT = Path("shards")
RUNS_ROOT = Path("runs")
# a folder with this file is a set of shards
INDEX_NAME = "dataset.json"
_CHUNK_BYTES = 1 << 20
_CHECKSUM_FIELD = "sha256"
# what file systems answer that cannot lock a file or flush a folder: some of NFS, Lustre, SMB, exFAT and FUSE
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
MAX_WAIT_WITHOUT_LOCKS_SECONDS = 1800


@contextmanager
def atomic_writer(path: Path, keep: Callable[[], bool] = lambda: True) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that gets its name when the block ends without an error and `keep()` is true.

    A crash, a full disk or an exception leaves an earlier file at `path` untouched. Raises RespikeError if the file
    system refuses to write (full, read-only, over a size limit).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if not keep():
                return
            file.flush()
            failpoints.reach("fsync", path.name)
            os.fsync(file.fileno())
        failpoints.reach("rename", path.name)
        # rename last: a killed process must not leave half a file that looks finished
        temporary.replace(path)
        failpoints.reach("renamed", path.name)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all. Raises RespikeError as `atomic_writer` does."""
    with atomic_writer(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_new(path: Path, text: str) -> bool:
    """Write a file unless it exists; return whether it was written. Of several processes that try, one succeeds.

    Raises RespikeError as `atomic_writer` does.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write_atomically(temporary, text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links, such as exFAT
            with file_lock(path.with_name(f".{path.name}.lock")):
                if path.exists():
                    return False
                temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def write_if_changed(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, unless the file holds it already."""
    content = text.encode("utf-8", "surrogateescape")
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    except OSError:
        pass
    write_atomically(path, content)


def sync_folder(folder: Path) -> None:
    """Flush `folder` to disk, so that a rename in it survives a power cut. Does nothing if the file system cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> RespikeError:
    """The error to raise when the file system refused to write `path`."""
    where = error.filename or "the output folder"
    hint = f"free space for {where}, or allow writing there, then run the same command again"
    return RespikeError(f"cannot write {path}: {error.strerror or error}", hint)


def canonical_json(value: object, *, indent: int | None = None) -> str:
    """Serialize `value` so that equal values give equal text: sorted keys, no escapes, a final newline if indented."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=indent, separators=separators)
    return text + "\n" if indent else text


def seal(value: dict[str, Any], *, indent: int | None = None) -> str:
    """Serialize `value` as canonical JSON with one more field, `sha256`: the checksum of all other fields."""
    return canonical_json(value | {_CHECKSUM_FIELD: sha256_of_bytes(_to_bytes(value))}, indent=indent)


def unseal(content: bytes) -> dict[str, Any]:
    """Read what `seal` returned, with its checksum. Raises ValueError if it was cut or changed."""
    try:
        value = json.loads(content)
        checksum = value[_CHECKSUM_FIELD]
        other_fields = {name: entry for name, entry in value.items() if name != _CHECKSUM_FIELD}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if sha256_of_bytes(_to_bytes(other_fields)) != checksum:
        raise ValueError("was changed after it was written")
    return dict(value)


def _to_bytes(value: object) -> bytes:
    return canonical_json(value).encode("utf-8", "surrogatepass")


def find_prepared() -> list[Path]:
    """Return the sets of shards under `shards/`, sorted."""
    return sorted(path.parent for path in SHARDS_ROOT.glob(f"*/{INDEX_NAME}"))


def sha256_of_bytes(content: bytes) -> str:
    """SHA-256 of `content`, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file, as 64 hex digits, in constant memory; `advance` gets the number of bytes after each read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return digest.hexdigest()


@contextmanager
def file_lock(path: Path, announce_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock at `path` during the block. If another process holds it, call `announce_wait`, then wait for it.

    The operating system releases the lock of a dead process. On a file system without locks, the lock is a file that
    exists as long as it is held. A process that is killed may leave it; so the wait ends after half an hour.

    Raises RespikeError if the file system refuses to write the lock, or if that half hour is over.
    """
    lock = None
    try:
        lock = _make_lock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            announce_wait()
            is_soft = isinstance(lock, filelock.SoftFileLock)
            lock.acquire(timeout=MAX_WAIT_WITHOUT_LOCKS_SECONDS if is_soft else -1)
    except filelock.Timeout:
        assert lock is not None, "only a lock that was made can time out"
        raise RespikeError(
            f"another process has held {lock.lock_file} for half an hour",
            "if no other respike is at work there, delete this file and run the same command again",
        ) from None
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _make_lock(path: Path) -> filelock.BaseFileLock:
    """The lock at `path`, still free: one of the operating system, or a file if the file system has no locks."""
    if _has_locks(path.parent):
        return filelock.FileLock(path)
    # only a marker to find the lock by; the lock is another file, since filelock takes an old empty file for held
    path.touch()
    return filelock.SoftFileLock(_soft_path(path))


def _soft_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _has_locks(folder: Path) -> bool:
    # tried with a file of its own, which nobody else can hold
    with tempfile.TemporaryFile(dir=folder, prefix=".lock-") as trial:
        try:
            fcntl.flock(trial, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            raise
    return True


@contextmanager
def folder_lock(path: Path, purpose: str, *, timeout_seconds: float = 0) -> Iterator[None]:
    """Hold the lock at `path` during the block; wait for it up to `timeout_seconds`.

    A dead process holds no lock, as with `file_lock`. Raises RespikeError that names the owner and its `purpose` if
    another process holds the lock.
    """
    owner_path = path.with_suffix(".owner.json")
    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _make_lock(path)
        lock.acquire(timeout=timeout_seconds)
    except filelock.Timeout:
        hint = "wait for it to finish, or stop it, then run the same command again"
        if isinstance(lock, filelock.SoftFileLock):
            hint += f"; if it was killed, delete {lock.lock_file} first, since this file system has no locks"
        raise RespikeError(f"{path.parent.parent} is in use: {_describe_owner(owner_path)}", hint) from None
    except OSError as error:
        raise write_error(path, error) from error
    try:
        write_atomically(owner_path, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "for": purpose}))
        yield
    finally:
        owner_path.unlink(missing_ok=True)
        lock.release()


def lock_owner(path: Path) -> str | None:
    """The host of the process that holds the lock at `path`; None if no process holds it.

    For a process of another machine only its note is known, so that a dead one still counts as the owner.
    """
    owner = _read_owner(path.with_suffix(".owner.json"))
    if owner is None:
        return None
    host = str(owner["host"])
    # its process id says nothing: another process may have the same id by now, above all after a container restart
    return host if host != socket.gethostname() or _is_locked(path) else None


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in _UNSUPPORTED or _soft_path(path).exists()
    return False


def _describe_owner(owner_path: Path) -> str:
    owner = _read_owner(owner_path)
    return "another process" if owner is None else f"process {owner['pid']} on {owner['host']} ({owner['for']})"


def _read_owner(owner_path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(owner_path.read_text("utf-8"))
        return {"pid": int(owner["pid"]), "host": owner["host"], "for": owner["for"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cache_folder(name: str) -> Path:
    """Return the folder `name` for files that can be downloaded again; create it if it is missing.

    It is under RESPIKE_CACHE, else under `respike` in XDG_CACHE_HOME or ~/.cache. Only this user may write to it.
    Raises RespikeError if it belongs to another user or others may write to it, as their files would be trusted.
    """
    base = os.environ.get("RESPIKE_CACHE")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "respike"
    folder = (Path(base) if base else default) / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise RespikeError(
            f"cannot create the cache {folder}: {error.strerror}", "set RESPIKE_CACHE to a folder of yours"
        ) from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise RespikeError(
            f"the cache {folder} is open to other users of this machine",
            f"`chmod 700 {folder}` if it is yours, or set RESPIKE_CACHE to a folder of yours",
        )
    return folder
