"""Progress: how long work reports how far it is. The caller decides what is shown."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of long work that is under way."""

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        """Say that `amount` more units are done; `facts` (loss, skipped, …) replace those shown before."""

    def at(self, worker: int, what: str) -> None:
        """Say what worker number `worker`, from 0, is at now, for whoever watches closely."""


class Progress(Protocol):
    """What long work reports to."""

    def task(self, name: str, *, total: float | None, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None where unknown); leaving the context ends it."""

    def say(self, message: str) -> None:
        """Tell a fact worth one line."""

    def warn(self, message: str) -> None:
        """Tell one line that the user should act on, though the work goes on."""


class Silence:
    """The progress of work that nobody watches: a Progress and a Task that do nothing."""

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """Open a task that nobody sees."""
        yield self

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        """Take no notice."""

    def at(self, worker: int, what: str) -> None:
        """Take no notice."""

    def say(self, message: str) -> None:
        """Take no notice."""

    def warn(self, message: str) -> None:
        """Take no notice."""


SILENCE = Silence()
