"""Attempts: what went wrong so far, how long to wait, when to give up; and how far the download is."""

import time
from contextlib import ExitStack

from respike.download.address import Place
from respike.download.incoming import BrokenTransferError
from respike.download.settings import FetchSettings
from respike.errors import DownloadError
from respike.progress import Progress, Task

# a connection that brought this much has earned the next one its full number of tries
_WORTH_BYTES = 1_000_000
# a name that cannot be found twice will not be found
_OFFLINE_RETRIES = 1


class Attempts:
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


class Meter:
    """Shows bytes, rate and time left; a resumed download counts what is left of it."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress
        self._stack = ExitStack()
        self._task: Task | None = None
        self._position = 0

    def __enter__(self) -> "Meter":
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
