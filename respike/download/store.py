"""One connection to a store that fsspec reads: s3, gs, a disk, memory, …"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from respike.addresses import open_address
from respike.download.address import Place
from respike.download.incoming import BrokenTransferError, Incoming, StaleError
from respike.errors import DownloadError, RespikeError

_CHUNK_BYTES = 1 << 20


@contextmanager
def open_store(place: Place, offset: int, version: str | None) -> Iterator[Incoming]:
    """Open the file at byte `offset`, if it still is the `version` that was begun. Raises as `open_web` does."""
    file_system, path = _find(place)
    try:
        info = file_system.info(path)
        is_folder, num_bytes = info.get("type") == "directory", info.get("size")
        found = file_system.ukey(path)
        if is_folder:
            raise DownloadError(f"{place.told} is a folder", "name one file in it")
        if offset and version and found != version:
            raise StaleError("the file has changed")
        file = file_system.open(path, "rb")
        file.seek(offset)
    except (DownloadError, StaleError):
        raise
    except Exception as error:
        raise _judge(error, place) from error
    with file:
        yield Incoming(offset=offset, num_bytes=num_bytes, version=found, chunks=_chunks(file, place))


def _find(place: Place) -> tuple[Any, str]:
    try:
        return open_address(place.url)
    except RespikeError as error:
        raise DownloadError(error.problem, error.hint) from error
    except Exception as error:
        raise _judge(error, place) from error


def _chunks(file: IO[bytes], place: Place) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(_CHUNK_BYTES)
        except Exception as error:
            raise _judge(error, place) from error
        if not chunk:
            return
        yield chunk


def _judge(error: Exception, place: Place) -> Exception:
    """What to raise: stores have errors of their own, of which only a few are known to be final."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DownloadError(f"there is no {place.told}", "see whether the address still holds")
    if isinstance(error, PermissionError):
        return DownloadError(f"{place.told} may not be read: {error}", "check the credentials for it")
    if isinstance(error, ValueError):
        return DownloadError(f"{place.told} cannot be read: {error}", "give https://…, s3://… or a path")
    return BrokenTransferError(f"{type(error).__name__}: {error}"[:200])
