"""fetch(): from an address to a whole, checked file, over dropped connections and across runs."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock

from respike.download.address import Place, by_hand, locate
from respike.download.incoming import BrokenTransferError, Incoming, StaleError
from respike.download.partial import Partial, Wanted, hash_with_progress
from respike.download.settings import FetchSettings
from respike.download.store import open_store
from respike.download.web import open_web
from respike.errors import DownloadError, RespikeError, SettingError
from respike.files import write_atomically, write_error
from respike.progress import SILENCE, Progress, Task

# a connection that brought this much has earned the next one its full number of tries
_WORTH_BYTES = 1_000_000
# a name that cannot be found twice will not be found
_OFFLINE_RETRIES = 1
_PATIENT = FetchSettings()


def fetch(
    address: str,
    target: Path,
    *,
    mirrors: Sequence[str] = (),
    sha256: str | None = None,
    num_bytes: int | None = None,
    offline: bool = False,
    progress: Progress = SILENCE,
    settings: FetchSettings = _PATIENT,
) -> Path:
    """Fetch the file at `address`, or at one of its `mirrors`, to `target`, and return `target`.

    `address` is `https://…`, `hf://owner/repo/file`, `s3://…` or whatever fsspec reads, `file:…` or a path. Nothing
    stands at `target` before all bytes are there and fit `sha256` (64 hex digits) and `num_bytes`, where given; what a
    stopped download received is kept beside it and continued. Its SHA-256 is kept in `TARGET.sha256`, so that a later
    change is seen. A file that is there is checked and used, without any network; two processes that fetch one file
    take turns. Raises DownloadError, with the way to fetch the file by hand, where it cannot be had, is another one
    than expected, or is not there and `offline` is set.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256 := sha256.lower()):
        raise SettingError(f"sha256 {sha256!r} is no SHA-256", "give 64 hex digits")
    wanted = Wanted(sha256=sha256, num_bytes=num_bytes)
    places = [locate(each) for each in (address, *mirrors)]
    if _is_there(target, wanted, progress):
        return target
    by_hand_hint = f"fetch it by hand ({by_hand(places[0])}) and put it at {target}, then run the same command again"
    if offline:
        raise DownloadError(f"{target} is not there, and offline {places[0].told} is not asked", by_hand_hint)
    with _turn(target, progress):
        if _is_there(target, wanted, progress):  # another process has fetched it meanwhile
            return target
        problems = []
        for place in places:
            try:
                digest = _fetch_from(place, target, wanted, progress, settings)
            except DownloadError as error:
                if len(places) == 1:
                    raise DownloadError(error.problem, f"{error.hint}; or {by_hand_hint}") from error
                problems.append(error.problem)
                continue
            except OSError as error:
                raise write_error(target, error) from error
            _remember(target, digest)
            return target
    raise DownloadError(f"no address gives {target.name}: {'; '.join(problems)}", by_hand_hint)


def _fetch_from(place: Place, target: Path, wanted: Wanted, progress: Progress, settings: FetchSettings) -> str:
    """Receive, check and name the file; returns its SHA-256."""
    partial = Partial(target, wanted)
    attempts = _Attempts(place, settings, progress)
    with _Meter(target.name, progress) as meter:
        while True:
            before = partial.num_received
            try:
                if not partial.is_whole():
                    _receive(place, partial, settings, meter, attempts)
            except BrokenTransferError as error:
                attempts.failed(error, partial.num_received - before)
                continue
            except StaleError as error:
                partial.drop()
                attempts.restarted(str(error))
                continue
            was_continued = partial.was_continued
            digest = partial.finish(progress)
            if digest is not None:
                return digest
            if not was_continued:
                raise DownloadError(
                    f"{place.told} sends a file whose SHA-256 is not {wanted.sha256}",
                    "the file has been changed or damaged on its way; it was not kept",
                )
            attempts.restarted("the parts do not make the expected file")


def _receive(place: Place, partial: Partial, settings: FetchSettings, meter: "_Meter", attempts: "_Attempts") -> None:
    """Take in what one connection brings. Raises BrokenTransferError where it ends before the file does."""
    version = partial.version_at(place.told)
    offset = partial.num_received
    connection = (
        open_web(place, offset, version, settings, takes_pages=partial.is_page)
        if place.is_web
        else open_store(place, offset, version)
    )
    with connection as incoming:
        if incoming.offset < offset:
            attempts.restarted("the file has changed, or the server cannot continue it")
        _refuse_endless(incoming, partial, place)
        with partial.receive(incoming, place.told) as file:
            total, received = partial.num_bytes, incoming.offset
            meter.start(received, total)
            for chunk in incoming.chunks:
                received += len(chunk)
                if total is not None and received > total:
                    partial.drop()
                    raise DownloadError(f"{place.told} sends more than the file's {total:,} bytes", "nothing was kept")
                file.write(chunk)
                meter.advance(len(chunk))
    if total is not None and received < total:
        raise BrokenTransferError(f"the connection ended after {received:,} of {total:,} bytes")


def _refuse_endless(incoming: Incoming, partial: Partial, place: Place) -> None:
    if not incoming.tells_end and partial.num_bytes is None and not partial.has_hash:
        raise DownloadError(
            f"{place.told} does not say how long it is, so a dropped connection would look like its end",
            "give its size or its SHA-256",
        )


class _Attempts:
    """Counts what went wrong, waits before the next try, and gives up in the end."""

    def __init__(self, place: Place, settings: FetchSettings, progress: Progress) -> None:
        self._place, self._settings, self._progress = place, settings, progress
        self._num_failures = self._num_restarts = 0

    def failed(self, error: BrokenTransferError, num_received: int) -> None:
        """Wait after a failure. Raises DownloadError after too many that brought next to nothing."""
        self._num_failures = 1 if num_received >= _WORTH_BYTES else self._num_failures + 1
        num_retries = self._settings.num_retries
        if error.is_offline:
            num_retries = min(num_retries, _OFFLINE_RETRIES)
        if self._num_failures > num_retries:
            raise DownloadError(
                f"cannot download {self._place.told}: {error.reason} ({self._num_failures} times in a row)",
                "check the network; what was received is kept and continued by the same command",
            ) from error
        wait_seconds = self._settings.backoff(self._num_failures)
        if error.wait_seconds is not None:
            wait_seconds = error.wait_seconds
        self._progress.say(f"{error.reason}; trying again in {wait_seconds:.0f} s")
        time.sleep(wait_seconds)

    def restarted(self, reason: str) -> None:
        """Note that the file is begun anew. Raises DownloadError after too many."""
        self._num_restarts += 1
        if self._num_restarts > max(1, self._settings.num_retries):
            raise DownloadError(
                f"cannot download {self._place.told}: begun anew {self._num_restarts} times: {reason}",
                "the file changes while it is fetched, or the server is broken",
            )
        self._progress.say(f"{reason}: begun anew")


class _Meter:
    """Shows bytes, rate and time left; a resumed download counts what is left of it."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress
        self._stack = ExitStack()
        self._task: Task | None = None
        self._position = 0

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, position: int, total: int | None) -> None:
        """Go on at `position` of `total` bytes; a new bar where that is not where the last one stopped."""
        if self._task is not None and position == self._position:
            return
        self._stack.close()
        left = None if total is None else total - position
        name = f"download {self._name}" + (" (resumed)" if position else "")
        self._task = self._stack.enter_context(self._progress.task(name, total=left, unit="bytes"))
        self._position = position

    def advance(self, num_bytes: int) -> None:
        """Count bytes that came."""
        self._position += num_bytes
        if self._task is not None:
            self._task.advance(num_bytes)


@contextmanager
def _turn(target: Path, progress: Progress) -> Iterator[None]:
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


def _is_there(target: Path, wanted: Wanted, progress: Progress) -> bool:
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
            _remember(target, sha256)
    return True


def _hash_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recall(target: Path) -> str | None:
    with suppress(OSError, ValueError):
        if match := re.match(r"[0-9a-f]{64}\b", _hash_path(target).read_text()):
            return match[0]
    return None


def _remember(target: Path, sha256: str) -> None:
    # in the form that `sha256sum --check` reads
    write_atomically(_hash_path(target), f"{sha256}  {target.name}\n")
