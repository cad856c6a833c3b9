"""Ray executor: a job on the nodes of a Ray cluster."""

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from respike.common.errors import RespikeError
from respike.data.executors import local
from respike.data.executors.base import Item, Job, Result, Watch, WorkerDeath
from respike.data.executors.local import Spare

_CONNECT_SECONDS = 10
# only items and notes pass through the object store; by default it would take a third of the memory
_STORE_BYTES = 128 << 20


def import_ray() -> Any:
    """Return the module `ray`. Raises RespikeError with the way to install it where there is none."""
    try:
        import ray
    except ImportError as error:
        raise RespikeError(
            f"--engine ray needs ray, which cannot be imported ({error})", "pip install 'respike[ray]'"
        ) from error
    return ray


@contextmanager
def connected(ray: Any, address: str | None, num_workers: int | None) -> Iterator[None]:
    """Be a driver of the cluster at `address` for the length of the block.

    A connection that stood before is used and left standing. Raises RespikeError where no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    fresh: dict[str, Any] = {}
    if address == "local":
        # a Ray instance of our own counts its processors for itself and tells nobody that it ran
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        fresh = {"num_cpus": num_workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    # Ray puts a handler of its own in the place of whatever the program does on SIGTERM
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **fresh)
    except (OSError, RuntimeError, ValueError) as error:
        raise RespikeError(f"no Ray cluster at {address}: {first_line(error)}", _START) from error
    try:
        with suppress(ValueError):  # not in the main thread, where Ray set none either
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Find out in seconds that nobody listens; Ray itself would try for many minutes."""
    if address in ("local", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        raise RespikeError(
            f"--ray-address {address!r} is no address of a cluster's head",
            "give HOST:PORT, `auto` or `local`; run respike on a node of the cluster rather than through ray://",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RespikeError(f"no Ray cluster answers at {address}: {first_line(error)}", _START) from error


_START = "start one with `ray start --head`, or give another --ray-address"


def first_line(error: BaseException) -> str:
    """What an error says, less Ray's many lines of advice."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


# a task's next item is begun while the last result settles, so a few together; few, for they are lost together
_MAX_ITEMS_A_TASK = 4
# towards the end tasks become small, so that no worker is left alone with several items
_TASKS_A_WORKER = 4
_POLL_SECONDS = 0.25
# a thousand workers that each sent every note would drown the driver
_NOTE_SECONDS = 1.0


def run(
    job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, watch: Watch, *, address: str | None = None
) -> Iterator[tuple[int, Result]]:
    """Do the job on every item and yield (its index, the result) as each is done.

    The promises are those of `base.Engine`. `address` is the cluster's, HOST:PORT (None: the variable RAY_ADDRESS, else
    a Ray instance of this machine that starts and ends with the run). At most `num_workers` tasks are in flight (None:
    as many as the cluster has processors for). A node that is lost counts as a death at the item it was at. Notes come
    up to a second late, and the last ones of a lost node not at all.

    Raises RespikeError where ray is not installed or no cluster answers.
    """
    ray = import_ray()
    with connected(ray, address, num_workers):
        flight = _TaskSet(ray, job, items, watch)
        try:
            yield from flight.run(num_workers)
        finally:
            flight.cancel()


# of the Ray worker that this module is loaded in; at the end of a run nothing else tells it that no task will come
_spare = Spare(idle_seconds=5.0)


def _task(job: Job[Any, Any], items: Sequence[Any]) -> Iterator[tuple[list[object], tuple[int, Any] | None]]:
    """Do a job on items; yield notes about once a second, and with them whatever is done, as (place in items, result).

    This is what a Ray worker runs.
    """
    notes: list[object] = []
    told = time.monotonic()
    for done in local.run_in_steps(job, items, 1, lambda _, note: notes.append(note), spare=_spare):
        if done is not None or (notes and time.monotonic() - told > _NOTE_SECONDS):
            yield list(notes), done
            notes.clear()
            told = time.monotonic()


@dataclass
class _RunningTask:
    """A task under way: the place that it takes, and its items that are not done."""

    place: int
    indices: list[int]
    undone: set[int]


class _TaskSet:
    """The tasks that are under way, and how often each item was lost."""

    def __init__(self, ray: Any, job: Job[Any, Any], items: Sequence[Any], watch: Watch) -> None:
        self._ray, self._items, self._watch, self._recover = ray, items, watch, job.recover
        # deaths are counted here and not by Ray, so that the item can be named
        self._task = ray.remote(max_retries=0, num_cpus=1, num_returns="streaming")(_task)
        # once into the cluster and not with every task
        self._job = ray.put(job)
        self._deaths: dict[int, list[WorkerDeath]] = {}
        self._waiting = deque(enumerate(items))
        self._pending: dict[Any, _RunningTask] = {}

    def run(self, num_workers: int | None) -> Iterator[tuple[int, Any]]:
        places = list(range(num_workers or max(1, len(self._items))))[::-1]
        width = num_workers or int(self._ray.cluster_resources().get("CPU", 1))
        while self._waiting or self._pending:
            while self._waiting and places:
                self._start(places.pop(), width)
            for stream in self._wait():
                yield from self._hear(stream, places)

    def cancel(self) -> None:
        for stream in self._pending:
            # by force: a task in the midst of its work would not hear anything gentler
            with suppress(Exception):
                self._ray.cancel(stream, force=True)

    def _start(self, place: int, width: int) -> None:
        most = max(1, min(_MAX_ITEMS_A_TASK, len(self._waiting) // (_TASKS_A_WORKER * width)))
        taken = [self._waiting.popleft()]
        # what was lost once goes alone, so that the next loss is certainly its own
        while len(taken) < most and not {taken[0][0], self._waiting[0][0]} & self._deaths.keys():
            taken.append(self._waiting.popleft())
        indices = [index for index, _ in taken]
        stream = self._task.remote(self._job, [item for _, item in taken])
        self._pending[stream] = _RunningTask(place, indices, set(indices))

    def _wait(self) -> list[Any]:
        """The tasks that have something to say."""
        streams = list(self._pending)
        with _signals_come_through():
            self._ray.wait(streams, timeout=_POLL_SECONDS)
            ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
        return list(ready)

    def _hear(self, stream: Any, places: list[int]) -> Iterator[tuple[int, Any]]:
        flown = self._pending[stream]
        try:
            notes, done = self._get(next(stream), flown)
        except StopIteration:
            self._land(stream, places)
        except _LostError as loss:
            self._land(stream, places)
            self._try_again(flown, loss)
        else:
            for note in notes:
                self._watch(flown.place, note)
            if done is not None:
                index = flown.indices[done[0]]
                flown.undone.remove(index)
                yield index, done[1]

    def _land(self, stream: Any, places: list[int]) -> None:
        places.append(self._pending.pop(stream).place)

    def _try_again(self, flown: _RunningTask, loss: "_LostError") -> None:
        """Put what a lost task had not done first in the queue again."""
        for index in sorted(flown.undone, reverse=True):
            deaths = self._deaths.setdefault(index, [])
            if len(flown.undone) == 1:
                deaths.append(WorkerDeath(note=None, exit_code=None))
            try:
                item = self._recover(self._items[index], tuple(deaths)) if deaths else self._items[index]
            except RespikeError as error:
                raise error from loss
            self._waiting.appendleft((index, item))

    def _get(self, reference: Any, flown: _RunningTask) -> tuple[list[object], tuple[int, Any] | None]:
        errors = self._ray.exceptions
        item = f"{self._items[min(flown.undone, default=0)]!s:.80}"
        try:
            message: tuple[list[object], tuple[int, Any] | None] = self._ray.get(reference)
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
        return message


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
