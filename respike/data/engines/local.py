"""The local engine: a function over items on the processes of one machine."""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, Generic

from respike.data.engines.base import Death, Function, Item, Recover, Result, Watch, try_again
from respike.data.engines.child import ERROR, NOTE, Child

# a worker is replaced once it is over either, so that a library that leaks cannot fill the machine
MAX_ITEMS_A_WORKER = 64
MAX_WORKER_BYTES = 1 << 30
# what a fresh process may take to load its libraries, over a slow network too
_START_SECONDS = 60.0
_POLL_SECONDS = 0.2


def run(
    function: "Function[Item, Result]",
    items: Sequence[Item],
    num_workers: int | None,
    watch: Watch,
    *,
    recover: "Recover[Item] | None" = None,
    deadline_seconds: float | None = None,
) -> Iterator[tuple[int, Result]]:
    """Call `function(item, report)` on every item and yield (its index, the result) as each is done.

    The promises are those of `base.Engine`; without `num_workers` there is one a core. Every item runs in a process of
    its own kind, with one worker too, so that nothing an item does can take the caller along.
    """
    crew = _Crew(function, items, recover or try_again, deadline_seconds)
    try:
        yield from crew.work(min(num_workers or os.cpu_count() or 1, len(items)), watch)
    finally:
        crew.dismiss()


@dataclass
class _Worker:
    """One place of the crew: the process that fills it now, and what that is at."""

    number: int
    child: Child | None = None
    index: int = -1
    num_done: int = 0
    note: object | None = None
    silent_seconds: float = 0.0


@dataclass
class _Crew(Generic[Item, Result]):
    """The workers of one run, and the items that wait for them."""

    function: "Function[Item, Result]"
    items: Sequence[Item]
    recover: "Recover[Item]"
    deadline_seconds: float | None
    workers: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = deque(enumerate(self.items))
        self._deaths: dict[int, list[Death]] = {}

    def work(self, num_workers: int, watch: Watch) -> Iterator[tuple[int, Result]]:
        self.workers = [_Worker(number) for number in range(num_workers)]
        for worker in self.workers:
            self._employ(worker)
        checked = time.monotonic()
        while busy := {worker.child.connection: worker for worker in self.workers if worker.child is not None}:
            ready: list[Any] = wait(list(busy), timeout=_POLL_SECONDS)
            for connection in ready:
                yield from self._hear(busy[connection], watch)
            now = time.monotonic()
            # time in which this process itself stood still (Ctrl-Z, a slow caller) is not held against the workers
            self._judge_silence(min(now - checked, 2 * _POLL_SECONDS))
            checked = now

    def dismiss(self) -> None:
        for worker in self.workers:
            if worker.child is not None:
                worker.child.end()
                worker.child = None

    def _employ(self, worker: _Worker) -> None:
        """Give a worker its next item, in a fresh process if it has none; send it home if none waits."""
        if not self._waiting:
            self._replace(worker)
            return
        worker.index, item = self._waiting.popleft()
        worker.note, worker.silent_seconds = None, 0.0
        worker.child = worker.child or Child()
        worker.child.give(self.function, item)

    def _hear(self, worker: _Worker, watch: Watch) -> Iterator[tuple[int, Result]]:
        assert worker.child is not None
        message = worker.child.receive()
        worker.silent_seconds = 0.0
        if message is None:
            self._bury(worker, Death(note=worker.note, exit_code=worker.child.exit_code()))
            return
        kind, content = message
        if kind == NOTE:
            worker.note = content
            watch(worker.number, content)
        elif kind == ERROR:
            raise content
        else:
            index, (result, num_bytes) = worker.index, content
            worker.num_done += 1
            if worker.num_done >= MAX_ITEMS_A_WORKER or num_bytes > MAX_WORKER_BYTES:
                self._replace(worker)
            # before the caller takes its time over the result
            self._employ(worker)
            yield index, result

    def _judge_silence(self, seconds: float) -> None:
        for worker in self.workers:
            worker.silent_seconds += seconds
            if worker.child is None or self.deadline_seconds is None or getattr(worker.note, "untimed", False):
                continue
            allowed = self.deadline_seconds if worker.note is not None else max(self.deadline_seconds, _START_SECONDS)
            # what it has just said is heard before it is judged
            if worker.silent_seconds > allowed and not worker.child.connection.poll():
                self._bury(worker, Death(note=worker.note, exit_code=worker.child.end(), hung=True))

    def _bury(self, worker: _Worker, death: Death) -> None:
        """Put the item that a worker died at first in the queue again, as `recover` wants it."""
        deaths = self._deaths.setdefault(worker.index, [])
        deaths.append(death)
        self._replace(worker)
        self._waiting.appendleft((worker.index, self.recover(self.items[worker.index], tuple(deaths))))
        self._employ(worker)

    def _replace(self, worker: _Worker) -> None:
        if worker.child is not None:
            worker.child.end()
        worker.child, worker.num_done = None, 0
