"""The Ray engine: a job on items on the nodes of a Ray cluster, or on a Ray instance of this machine.

Each item is one Ray task, and the task runs it in a watched process of its node, by the local engine: so deaths,
silence and leaks are dealt with there, in the same way as on one machine, and Ray is left with nodes that come and go.
Ray runs one task after another in a worker of its own, which hands its process on from task to task.
Items and results travel through Ray and must be small; whatever is large, the function reads and writes itself.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from respike.data.engines import local
from respike.data.engines.base import Death, Item, Job, Result, Watch
from respike.data.engines.ray_cluster import connected, first_line, import_ray
from respike.data.engines.ray_notes import Listener, Mail
from respike.data.engines.spare import Spare
from respike.errors import RespikeError

_POLL_SECONDS = 0.25


def run(
    job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, watch: Watch, *, address: str | None = None
) -> Iterator[tuple[int, Result]]:
    """Do the job on every item and yield (its index, the result) as each is done.

    The promises are those of `base.Engine`. `address` is the cluster's, HOST:PORT (None: the variable RAY_ADDRESS, else
    a Ray instance of this machine that starts and ends with the run). At most `num_workers` tasks are in flight (None:
    as many as the cluster has processors for). A node that is lost counts as a death at each item it was at. Notes come
    up to a second late, and the last ones of a lost node not at all.

    Raises RespikeError where ray is not installed or no cluster answers.
    """
    ray = import_ray()
    with connected(ray, address, num_workers):
        listener = Listener(ray, watch)
        flight = _Flight(ray, _Work(job, listener.actor), items, listener)
        try:
            yield from flight.run(num_workers or max(1, len(items)))
        finally:
            flight.cancel()
            listener.close()


# of the Ray worker that this module is loaded in; at the end of a run nothing else tells it that no task will come
_spare = Spare(idle_seconds=5.0)


@dataclass(frozen=True)
class _Work:
    """What a task does with an item. It is put into the cluster once and not sent with every item."""

    job: Job[Any, Any]
    tally: Any

    def __call__(self, item: Any, ticket: int) -> tuple[Any, list[object]]:
        mail = Mail(self.tally, ticket)
        done = local.run(self.job, [item], 1, lambda _, note: mail.add(note), spare=_spare)
        return next(result for _, result in done), mail.notes


def _task(work: _Work, item: Any, ticket: int) -> tuple[Any, list[object]]:
    return work(item, ticket)


class _Flight:
    """The tasks that are under way, and how often each item was lost."""

    def __init__(self, ray: Any, work: _Work, items: Sequence[Any], listener: "Listener") -> None:
        self._ray, self._recover, self._items, self._listener = ray, work.job.recover, items, listener
        # deaths are counted here and not by Ray, so that the item can be named
        self._task = ray.remote(max_retries=0, num_cpus=1)(_task)
        self._work = ray.put(work)
        self._deaths: dict[int, list[Death]] = {}
        self._pending: dict[Any, tuple[int, int, int]] = {}
        self._tickets = itertools.count()

    def run(self, most: int) -> Iterator[tuple[int, Any]]:
        waiting = list(enumerate(self._items))[::-1]
        places = list(range(most))[::-1]
        while waiting or self._pending:
            while waiting and places:
                self._start(*waiting.pop(), places.pop())
            with _signals_come_through():
                done, _ = self._ray.wait(list(self._pending), timeout=_POLL_SECONDS)
            self._listener.pass_on()
            for reference in done:
                index, place, ticket = self._pending.pop(reference)
                places.append(place)
                try:
                    result, notes = self._result(reference, index)
                except _LostError as loss:
                    self._listener.end(ticket)
                    deaths = self._deaths.setdefault(index, [])
                    deaths.append(Death(note=None, exit_code=None))
                    try:
                        waiting.append((index, self._recover(self._items[index], tuple(deaths))))
                    except RespikeError as error:
                        raise error from loss
                else:
                    self._listener.end(ticket, notes)
                    yield index, result

    def cancel(self) -> None:
        for reference in self._pending:
            # by force: a task in the midst of its work would not hear anything gentler
            with suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _start(self, index: int, item: Any, place: int) -> None:
        ticket = next(self._tickets)
        self._listener.begin(ticket, place)
        self._pending[self._task.remote(self._work, item, ticket)] = (index, place, ticket)

    def _result(self, reference: Any, index: int) -> tuple[Any, list[object]]:
        errors = self._ray.exceptions
        item = f"{self._items[index]!s:.80}"
        try:
            result: tuple[Any, list[object]] = self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ImportError):
                raise RespikeError(
                    f"a node of the Ray cluster cannot run {item}: {cause}",
                    "install the same respike, with the same constraints.txt, on every node",
                ) from error
            raise cause from None
        except (errors.RaySystemError, errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            raise RespikeError(f"Ray cannot run {item}: {first_line(error)}", "see what `ray status` says") from error
        except errors.RayError as error:
            raise _LostError(first_line(error)) from error
        return result


@contextmanager
def _signals_come_through() -> Iterator[None]:
    """Let an exception of a signal handler out as it is: raised while Ray waits, it would come hidden in another."""
    try:
        yield
    except SystemError as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, Exception):
            raise
        raise cause from None


class _LostError(Exception):
    """A task's process or node was lost, and with it whatever was known of its end."""
