"""The local engine: a job on items on the processes of one machine."""

import itertools
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, Generic

from respike.data.engines.base import Death, Item, Job, Result, Watch
from respike.data.engines.child import ERROR, FREE, NOTE, Child
from respike.data.engines.spare import Spare

# a worker is replaced once it is over either, so that a library that leaks cannot fill the machine
MAX_ITEMS_A_WORKER = 64
MAX_WORKER_BYTES = 1 << 30
# what a fresh process may take to load its libraries, over a slow network too
_START_SECONDS = 60.0
_POLL_SECONDS = 0.2


def run(
    job: Job[Item, Result],
    items: Sequence[Item],
    num_workers: int | None,
    watch: Watch,
) -> Iterator[tuple[int, Result]]:
    """Do the job on every item and yield (its index, the result) as each is done.

    The promises are those of `base.Engine`; without `num_workers` there is one a core. Every item runs in a process of
    its own kind, with one worker too, so that nothing an item does can take the caller along.
    """
    return (done for done in run_in_steps(job, items, num_workers, watch) if done is not None)


def run_in_steps(
    job: Job[Item, Result],
    items: Sequence[Item],
    num_workers: int | None,
    watch: Watch,
    *,
    spare: Spare | None = None,
) -> Iterator[tuple[int, Result] | None]:
    """The same as `run`, but give control back now and then: None says that nothing more is done yet.

    With `spare` a process that is left over is kept for the next run.
    """
    crew = _Crew(job, items, spare)
    try:
        yield from crew.work(min(num_workers or os.cpu_count() or 1, len(items)), watch)
    finally:
        crew.dismiss()


@dataclass
class _Worker:
    """One place of the crew: the process that fills it now, the item that it is at, and the one that settles there.

    `index` and `settling` are None where there is none; `note` and `settling_note` are the last of either item.
    """

    number: int
    child: Child | None = None
    index: int | None = None
    note: object | None = None
    settling: int | None = None
    settling_note: object | None = None
    is_worn: bool = False
    silent_seconds: float = 0.0


@dataclass
class _Crew(Generic[Item, Result]):
    """The workers of one run, and the items that wait for them."""

    job: Job[Item, Result]
    items: Sequence[Item]
    spare: Spare | None
    workers: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = deque(enumerate(self.items))
        self._deaths: dict[int, list[Death]] = {}
        # items at which a worker died share no worker, so that the next death is certainly theirs
        self._alone: set[int] = set()

    def work(self, num_workers: int, watch: Watch) -> Iterator[tuple[int, Result] | None]:
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
            yield None

    def dismiss(self) -> None:
        for worker in self.workers:
            if worker.child is not None:
                worker.child.end()
                worker.child = None

    def _employ(self, worker: _Worker) -> None:
        """Give a worker that is at no item the next one, in a fresh process if it has none or a worn one.

        While an item settles there, the next one may have to wait for it; a worker with nothing to do goes home.
        """
        if worker.settling is not None:
            alone = {worker.settling, *(index for index, _ in itertools.islice(self._waiting, 1))} & self._alone
            if worker.is_worn or alone or not self._waiting:
                return
        elif not self._waiting:
            if self.spare is not None and worker.child is not None and not worker.is_worn:
                self.spare.keep(worker.child)
                worker.child = None
            self._replace(worker)
            return
        elif worker.is_worn:
            self._replace(worker)
        worker.index, item = self._waiting.popleft()
        worker.note, worker.silent_seconds = None, 0.0
        worker.child = worker.child or (self.spare and self.spare.take()) or Child()
        worker.child.give(self.job.function, item)

    def _hear(self, worker: _Worker, watch: Watch) -> Iterator[tuple[int, Result]]:
        assert worker.child is not None
        message = worker.child.receive()
        worker.silent_seconds = 0.0
        if message is None:
            self._bury(worker, worker.child.exit_code())
            return
        kind, content = message
        if kind == NOTE:
            worker.note = content
            watch(worker.number, content)
        elif kind == ERROR:
            raise content
        elif kind == FREE:
            assert worker.settling is None
            worker.settling, worker.settling_note, worker.index = worker.index, worker.note, None
            worker.is_worn = worker.child.num_given >= MAX_ITEMS_A_WORKER or content > MAX_WORKER_BYTES
            self._employ(worker)
        else:
            index, worker.settling = worker.settling, None
            assert index is not None
            # before the caller takes its time over the result
            if worker.index is None:
                self._employ(worker)
            yield index, content

    def _judge_silence(self, seconds: float) -> None:
        allowed = self.job.deadline_seconds
        for worker in self.workers:
            worker.silent_seconds += seconds
            # a disk that keeps one item waiting may keep the next one, too
            if allowed is None or worker.index is None or worker.settling is not None:
                continue
            if getattr(worker.note, "untimed", False) or worker.child is None:
                continue
            most = allowed if worker.note is not None else max(allowed, _START_SECONDS)
            # what it has just said is heard before it is judged
            if worker.silent_seconds > most and not worker.child.connection.poll():
                self._bury(worker, worker.child.end(), hung=True)

    def _bury(self, worker: _Worker, exit_code: int, *, hung: bool = False) -> None:
        """Put what a dead worker was at first in the queue again, as the job wants it recovered.

        The death of a worker that was at two items cannot be told to be of either: it counts for none.
        """
        lost = [(worker.settling, worker.settling_note), (worker.index, worker.note)]
        both = [(index, note) for index, note in lost if index is not None]
        for index, note in reversed(both):
            deaths = self._deaths.setdefault(index, [])
            if len(both) == 1:
                deaths.append(Death(note=note, exit_code=exit_code, hung=hung))
            self._alone.add(index)
            item = self.items[index]
            self._waiting.appendleft((index, self.job.recover(item, tuple(deaths)) if deaths else item))
        self._replace(worker)
        self._employ(worker)

    def _replace(self, worker: _Worker) -> None:
        if worker.child is not None:
            worker.child.end()
        worker.child, worker.index, worker.settling, worker.is_worn = None, None, None, False
