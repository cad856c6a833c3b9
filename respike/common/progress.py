"""Progress: the interface through which long work reports how much is done. The caller decides what is shown."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of long work in progress."""

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        """Report that `amount` more units are done; `facts` (loss, skipped, …) replace earlier values."""

    def at(self, worker: int, what: str) -> None:
        """Report what worker number `worker`, from 0, works on now."""


class Progress(Protocol):
    """The receiver of progress reports."""

    def task(self, name: str, *, total: float | None, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units, None if unknown; leaving the context ends it."""

    def say(self, message: str) -> None:
        """Show one line of information."""

    def warn(self, message: str) -> None:
        """Show one line that the user should act on, though the work continues."""


class Silence:
    """A Progress and a Task that show nothing."""

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """Open a task that shows nothing."""
        yield self

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        """Do nothing."""

    def at(self, worker: int, what: str) -> None:
        """Do nothing."""

    def say(self, message: str) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""


SILENCE = Silence()
