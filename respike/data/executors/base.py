"""The executor interface: what a job is, what every executor promises, and the serial executor of this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from respike.common.errors import RespikeError

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[object], None]
"""Called by a job's function with an event, a picklable object that says how far the item is."""
OnEvent = Callable[[int, object], None]
"""Called in the process that started the job, with the number of the worker, from 0, and the event that it sent."""

MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class WorkerDeath:
    """How a worker ended at an item that it did not finish.

    `last_event` is the last event that it sent about the item, None if there was none. `exit_code` is negative if a
    signal ended the worker, None if unknown. `is_timeout` says that it was killed because no event came in time.
    """

    last_event: object | None
    exit_code: int | None
    is_timeout: bool = False

    @property
    def cause(self) -> str:
        """The end in a few words."""
        if self.is_timeout:
            return "it hung"
        if self.exit_code is None:
            return "it was lost"
        return f"killed by signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"


Retry = Callable[[Item, Sequence[WorkerDeath]], Item]
"""Decides what to try after a worker died: takes the original item and all deaths at it so far, and returns the item to
try next. Raises RespikeError to end the run. A pure function that pickles."""


def retry_same_item(item: Item, deaths: Sequence[WorkerDeath]) -> Item:
    """Return the item unchanged. Raises RespikeError that names it after `MAX_ATTEMPTS` deaths."""
    if len(deaths) >= MAX_ATTEMPTS:
        raise RespikeError(
            f"a worker died {len(deaths)} times at {item!s:.80}: {deaths[-1].cause}",
            "give each worker more memory, or use fewer workers",
        )
    return item


@dataclass(frozen=True)
class PendingResult(Generic[Result]):
    """A result that only has to be waited for, such as a file that the disk is writing: `wait` returns it.

    `wait` reports no events. It may run in a second thread while the worker's function is at its next item. If the
    worker dies before it has returned, the item is started again; an exception from it ends the run.
    """

    wait: Callable[[], Result]


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Item, Result]):
    """What is done with every item, and what happens to items at which workers die. It pickles.

    `function(item, report)` returns the result or a PendingResult. A worker that reports no event for
    `timeout_seconds` (None: no limit) is killed. `retry` decides what is tried after a death.
    """

    function: Callable[[Item, Report], Result | PendingResult[Result]]
    retry: Retry[Item] = retry_same_item
    timeout_seconds: float | None = None


class Executor(Protocol):
    """Runs a job over items: in this process, on local processes, on a cluster."""

    def __call__(
        self, job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, on_event: OnEvent
    ) -> Iterator[tuple[int, Result]]:
        """Run the job on every item and yield (index of the item, result) as each is done.

        At most `num_workers` work at once; None leaves the number to the executor. Items and results must pickle. An
        item may be started again from its beginning. A worker that dies or is killed is replaced. An exception from the
        job's function ends the run.
        """


def run_serially(
    job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, on_event: OnEvent
) -> Iterator[tuple[int, Result]]:
    """Run the job on every item in this process, in order, and yield (index of the item, result).

    Nothing watches this process: if an item kills it, the run is over, and `job.timeout_seconds` has no effect.
    `num_workers` is ignored.
    """
    for index, item in enumerate(items):
        result = job.function(item, lambda event: on_event(0, event))
        yield index, result.wait() if isinstance(result, PendingResult) else result
