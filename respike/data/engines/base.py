"""What every engine promises, so that work can be handed to any of them. Engines know no video.

An engine calls `function(item, report)` on every item, somewhere, and yields each result with its item's index. While
it works, the function says how far it is by `report(note)`, a note being anything small that pickles; notes are what an
engine knows of the work's progress, and a worker that sends none for too long is taken for one that hangs. After a note
whose attribute `untimed` is true the next one may take for ever.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from respike.errors import RespikeError

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[object], None]
Function = Callable[[Item, Report], Result]
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


class Engine(Protocol):
    """A way to run a function over items: local processes, a cluster."""

    def __call__(
        self,
        function: "Function[Item, Result]",
        items: Sequence[Item],
        num_workers: int | None,
        watch: Watch,
        *,
        recover: "Recover[Item] | None" = None,
        deadline_seconds: float | None = None,
    ) -> "Iterator[tuple[int, Result]]":
        """Call `function(item, report)` on every item and yield (its index, the result) as each is done.

        `num_workers` is the most that work at once; None leaves it to the engine.
        `function`, items and results must pickle; an item is a unit that may be begun again from its start. A worker
        that dies, or that sends no note for `deadline_seconds` (None: for ever) and is killed for it, is replaced;
        `recover` (None: `try_again`) says what is tried next. An exception from `function` ends the run.
        """


def try_again(item: Item, deaths: Sequence[Death]) -> Item:
    """Try the same item again; raise RespikeError that names it after `MAX_ATTEMPTS` deaths."""
    if len(deaths) >= MAX_ATTEMPTS:
        raise RespikeError(
            f"a worker died {len(deaths)} times at {item!s:.80}: {deaths[-1].cause}",
            "give each worker more memory, or run with fewer --workers",
        )
    return item
