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
from respike.common.processes import usable_cpus
from respike.data.executors import local
from respike.data.executors.base import Item, Job, OnEvent, Result, WorkerDeath

_CONNECT_SECONDS = 10
# only items and events pass through Ray's object store, which would take a third of the memory by default
_OBJECT_STORE_BYTES = 128 << 20
# a task holds several items, because the next one can start while the result of the last is pending; only a few,
# because they are lost together
_MAX_ITEMS_PER_TASK = 4
# near the end tasks become small, so that no worker is left alone with several items
_TASKS_PER_WORKER = 4
_POLL_SECONDS = 0.25
# a thousand workers that each sent every event at once would overload the driver
_EVENT_SECONDS = 1.0
_HOW_TO_CONNECT = "start a cluster with `ray start --head`, or give another address"

_Done = tuple[int, Any]
"""An item that is done: its number within its task, and the result."""
_Message = tuple[list[object], _Done | None]
"""What a task sends: the events since its last message, and an item that is done, if there is one."""


def run(
    job: Job[Item, Result],
    items: Sequence[Item],
    num_workers: int | None,
    on_event: OnEvent,
    *,
    address: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Run the job on every item and yield (index of the item, result) as each is done.

    Keeps the promises of `base.Executor`. Each Ray task runs its items in a local worker process, so that a crash or a
    timeout is handled on the node. `address` is HOST:PORT of the cluster; None means the variable RAY_ADDRESS, or else
    a Ray instance on this machine that ends with the run. At most `num_workers` tasks run at once; None means one per
    processor of the cluster. A lost node counts as a death at the item that it was at. Events arrive up to one second
    late; the last ones of a lost node never arrive.

    Raises RespikeError if Ray is not installed, if no cluster answers, or if an item is lost too often.
    """
    ray = _import_ray()
    with _connect(ray, address, num_workers):
        tasks = _TaskQueue(ray, job, items, on_event)
        try:
            yield from tasks.run(num_workers)
        finally:
            tasks.cancel()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RespikeError(
            f"the Ray executor needs the package ray, which cannot be imported: {error}", "pip install 'respike[ray]'"
        ) from error
    return ray


@contextmanager
def _connect(ray: Any, address: str | None, num_workers: int | None) -> Iterator[None]:
    """Connect to the cluster for the length of the block. An existing connection is used and kept."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    new_instance: dict[str, Any] = {}
    if address == "local":
        # a Ray instance of our own gets its own number of processors, and reports no usage statistics
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        new_instance = {
            "num_cpus": num_workers or usable_cpus(),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    # Ray replaces the program's handler of SIGTERM by its own
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **new_instance)
    except (OSError, RuntimeError, ValueError) as error:
        raise RespikeError(f"there is no Ray cluster at {address}: {_first_line(error)}", _HOW_TO_CONNECT) from error
    try:
        with suppress(ValueError):  # outside the main thread, where Ray replaced nothing
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Find out in seconds whether anything answers; Ray itself would try for many minutes."""
    if address in ("local", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        raise RespikeError(
            f"{address!r} is not the address of a Ray cluster's head",
            "give HOST:PORT, `auto` or `local`; run respike on a node of the cluster instead of using ray://",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RespikeError(f"no Ray cluster answers at {address}: {_first_line(error)}", _HOW_TO_CONNECT) from error


def _first_line(error: BaseException) -> str:
    """What an error says, without Ray's many lines of advice."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


# of the Ray worker that loads this module, so that not every task has to start a process and load its libraries
_idle_processes = local.IdleProcesses(idle_seconds=5.0)


def _run_items(job: Job[Any, Any], items: Sequence[Any]) -> Iterator[_Message]:
    """Run a job on the items of one task. This is what a Ray worker does."""
    events: list[object] = []
    last_sent = time.monotonic()
    steps = local.run_in_steps(job, items, 1, lambda _, event: events.append(event), idle_processes=_idle_processes)
    for done in steps:
        if done is not None or (events and time.monotonic() - last_sent > _EVENT_SECONDS):
            yield list(events), done
            events.clear()
            last_sent = time.monotonic()


@dataclass
class _RunningTask:
    """A task on the cluster: the number of the worker that it counts as, its items, and those that are not done."""

    worker: int
    indices: list[int]
    open_indices: set[int]


class _TaskQueue:
    """The items that wait, the tasks that run, and how often each item was lost."""

    def __init__(self, ray: Any, job: Job[Any, Any], items: Sequence[Any], on_event: OnEvent) -> None:
        self._ray, self._items, self._on_event, self._retry = ray, items, on_event, job.retry
        # we retry, not Ray: only we can name the item that is lost again and again
        self._remote_function = ray.remote(max_retries=0, num_cpus=1, num_returns="streaming")(_run_items)
        # sent to the cluster once, not with every task
        self._job = ray.put(job)
        self._deaths: dict[int, list[WorkerDeath]] = {}
        self._queue = deque(enumerate(items))
        # by the stream of its messages
        self._running: dict[Any, _RunningTask] = {}

    def run(self, num_workers: int | None) -> Iterator[tuple[int, Any]]:
        idle_workers = list(range(num_workers or max(1, len(self._items))))[::-1]
        num_processors = num_workers or int(self._ray.cluster_resources().get("CPU", 1))
        while self._queue or self._running:
            while self._queue and idle_workers:
                self._start(idle_workers.pop(), num_processors)
            for stream in self._wait():
                yield from self._receive(stream, idle_workers)

    def cancel(self) -> None:
        for stream in self._running:
            # a task in the middle of an item does not react to anything gentler
            with suppress(Exception):
                self._ray.cancel(stream, force=True)

    def _start(self, worker: int, num_processors: int) -> None:
        num_items = max(1, min(_MAX_ITEMS_PER_TASK, len(self._queue) // (_TASKS_PER_WORKER * num_processors)))
        taken = [self._queue.popleft()]
        # an item that was lost before goes alone, so that the next loss is certainly its own
        while len(taken) < num_items and not {taken[0][0], self._queue[0][0]} & self._deaths.keys():
            taken.append(self._queue.popleft())
        indices = [index for index, _ in taken]
        stream = self._remote_function.remote(self._job, [item for _, item in taken])
        self._running[stream] = _RunningTask(worker, indices, set(indices))

    def _wait(self) -> list[Any]:
        """Wait a moment; return the streams that have a message."""
        streams = list(self._running)
        with _unwrap_signal_exceptions():
            self._ray.wait(streams, timeout=_POLL_SECONDS)
            ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
        return list(ready)

    def _receive(self, stream: Any, idle_workers: list[int]) -> Iterator[tuple[int, Any]]:
        task = self._running[stream]
        try:
            events, done = self._get(next(stream), task)
        except StopIteration:
            idle_workers.append(self._running.pop(stream).worker)
        except _LostTaskError as loss:
            idle_workers.append(self._running.pop(stream).worker)
            self._requeue(task, loss)
        else:
            for event in events:
                self._on_event(task.worker, event)
            if done is not None:
                index = task.indices[done[0]]
                task.open_indices.remove(index)
                yield index, done[1]

    def _requeue(self, task: _RunningTask, loss: "_LostTaskError") -> None:
        """Put the items that a lost task has not done back at the front of the queue."""
        for index in sorted(task.open_indices, reverse=True):
            deaths = self._deaths.setdefault(index, [])
            if len(task.open_indices) == 1:
                deaths.append(WorkerDeath(last_event=None, exit_code=None))
            try:
                item = self._retry(self._items[index], tuple(deaths)) if deaths else self._items[index]
            except RespikeError as error:
                raise error from loss
            self._queue.appendleft((index, item))

    def _get(self, reference: Any, task: _RunningTask) -> _Message:
        errors = self._ray.exceptions
        item = f"{self._items[min(task.open_indices, default=0)]!s:.80}"
        try:
            message: _Message = self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ImportError):
                raise RespikeError(
                    f"a node of the Ray cluster cannot run {item}: {cause}",
                    "install the same respike, with the same constraints.txt, on every node",
                ) from error
            raise cause from None
        except (errors.RaySystemError, errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            raise RespikeError(f"Ray cannot run {item}: {_first_line(error)}", "see what `ray status` says") from error
        except errors.RayError as error:
            raise _LostTaskError(_first_line(error)) from error
        return message


@contextmanager
def _unwrap_signal_exceptions() -> Iterator[None]:
    """Raise an exception of a signal handler as it is: Ray's `wait` would hide it in a SystemError."""
    try:
        yield
    except SystemError as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, Exception):
            raise
        raise cause from None


class _LostTaskError(Exception):
    """The process or node of a task is lost."""
