"""What every engine promises, so that work can be handed to any of them. Engines know no video.

An engine calls `function(item, report)` on every item, somewhere, and yields each result with its item's index. While
it works, the function says how far it is by `report(note)`, a note being anything small that pickles; notes are what an
engine knows of the work's progress, and a worker that sends none for too long is taken for one that hangs. After a note
whose attribute `untimed` is true the next one may take for ever. A function whose last part only waits, for a disk or a
network, returns a `Settling`: the worker begins its next item meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from respike.errors import RespikeError

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[object], None]
Watch = Callable[[int, object], None]
"""What the caller hears while the work goes on: the number of the worker, from 0, and its note."""

MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Death:
    """How a worker ended at an item that it did not finish.

    `note` is the last that it sent of the item (None: none), `exit_code` is negative where a signal ended it and None
    where nobody knows; `hung` says that it was killed because no note came in time.
    """

    note: object | None
    exit_code: int | None
    hung: bool = False

    @property
    def cause(self) -> str:
        """The end in a few words."""
        if self.hung:
            return "it hung"
        if self.exit_code is None:
            return "it was lost"
        return f"killed by signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"


Recover = Callable[[Item, Sequence[Death]], Item]
"""What to try after a worker died at an item: given the item as it was first handed over and all deaths at it so far,
return the item to try next, or raise RespikeError to end the run. A pure function that pickles."""


def try_again(item: Item, deaths: Sequence[Death]) -> Item:
    """Try the same item again; raise RespikeError that names it after `MAX_ATTEMPTS` deaths."""
    if len(deaths) >= MAX_ATTEMPTS:
        raise RespikeError(
            f"a worker died {len(deaths)} times at {item!s:.80}: {deaths[-1].cause}",
            "give each worker more memory, or run with fewer --workers",
        )
    return item


@dataclass(frozen=True)
class Settling(Generic[Result]):
    """A result that is there but for waiting: `settle` does that and returns it.

    It sends no notes and may run in a thread of its own beside the function at the next item. Where the worker dies
    before it has returned, the item is begun again; an exception from it ends the run.
    """

    settle: Callable[[], Result]


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Item, Result]):
    """What is done with every item, and what becomes of those at which workers die. It pickles.

    `function(item, report)` returns the result, or a Settling of it. A worker that sends no note for
    `deadline_seconds` (None: for ever) is killed; `recover` says what is tried after a death.
    """

    function: Callable[[Item, Report], Result | Settling[Result]]
    recover: Recover[Item] = try_again
    deadline_seconds: float | None = None


class Engine(Protocol):
    """A way to do a job on items: local processes, a cluster."""

    def __call__(
        self, job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, watch: Watch
    ) -> Iterator[tuple[int, Result]]:
        """Do the job on every item and yield (its index, the result) as each is done.

        `num_workers` is the most that work at once; None leaves it to the engine. Items and results must pickle; an
        item is a unit that may be begun again from its start. A worker that dies or is killed is replaced. An
        exception from the job's function ends the run.
        """
