"""What every executor promises, and the executor of this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from respike.common.errors import RespikeError

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[object], None]
Watch = Callable[[int, object], None]
"""What the caller hears while the work goes on: the number of the worker, from 0, and its note."""

MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class WorkerDeath:
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


Recover = Callable[[Item, Sequence[WorkerDeath]], Item]
"""What to try after a worker died at an item: given the item as it was first handed over and all deaths at it so far,
return the item to try next, or raise RespikeError to end the run. A pure function that pickles."""


def try_again(item: Item, deaths: Sequence[WorkerDeath]) -> Item:
    """Try the same item again; raise RespikeError that names it after `MAX_ATTEMPTS` deaths."""
    if len(deaths) >= MAX_ATTEMPTS:
        raise RespikeError(
            f"a worker died {len(deaths)} times at {item!s:.80}: {deaths[-1].cause}",
            "give each worker more memory, or run with fewer --workers",
        )
    return item


@dataclass(frozen=True)
class PendingResult(Generic[Result]):
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

    function: Callable[[Item, Report], Result | PendingResult[Result]]
    recover: Recover[Item] = try_again
    deadline_seconds: float | None = None


class Executor(Protocol):
    """A way to do a job on items: local processes, a cluster."""

    def __call__(
        self, job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, watch: Watch
    ) -> Iterator[tuple[int, Result]]:
        """Do the job on every item and yield (its index, the result) as each is done.

        `num_workers` is the most that work at once; None leaves it to the engine. Items and results must pickle; an
        item is a unit that may be begun again from its start. A worker that dies or is killed is replaced. An
        exception from the job's function ends the run.
        """


def run(
    job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, watch: Watch
) -> Iterator[tuple[int, Result]]:
    """Do the job on every item, in order, and yield (its index, the result).

    Of the promises of `base.Engine` it keeps those that one process can: nothing is watched from outside, so a death
    is the caller's own and a deadline does not count.
    """
    for index, item in enumerate(items):
        result = job.function(item, lambda note: watch(0, note))
        yield index, result.settle() if isinstance(result, PendingResult) else result
