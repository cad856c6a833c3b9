"""The local engine: a function over items on the processes of one machine."""

import multiprocessing
import multiprocessing.queues
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

import pebble

from respike.errors import RespikeError

Item = TypeVar("Item")
Result = TypeVar("Result")
Function = Callable[[Item, Callable[[int], None]], Result]

MAX_ATTEMPTS = 3
_POLL_SECONDS = 0.2
# set in each worker process by its initialiser: the way its reports travel home
_reports: "multiprocessing.queues.Queue[int] | None" = None


def run(
    function: "Function[Item, Result]", items: Sequence[Item], num_workers: int, report: Callable[[int], None]
) -> Iterator[tuple[int, Result]]:
    """Call `function(item, report)` on every item and yield (its index, the result) as each is done.

    One worker runs in this process, more in processes of their own, started afresh (so `function` and items must
    pickle). A worker that dies is replaced and its item tried again; after 3 attempts RespikeError names the item.
    An exception from `function` ends the run. `report` is called here with what the workers report.
    """
    if num_workers == 1 or len(items) <= 1:
        for index, item in enumerate(items):
            yield index, function(item, report)
        return
    # spawn, not fork: video and picture libraries hold threads and locks that a fork would copy half-way
    context = multiprocessing.get_context("spawn")
    reports: multiprocessing.queues.Queue[int] = context.Queue()
    pool: Any = pebble.ProcessPool(
        max_workers=min(num_workers, len(items)), context=context, initializer=_start_worker, initargs=(reports,)
    )
    try:
        yield from _drain(pool, function, items, reports, report)
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _drain(
    pool: Any,
    function: "Function[Item, Result]",
    items: Sequence[Item],
    reports: "multiprocessing.queues.Queue[int]",
    report: Callable[[int], None],
) -> Iterator[tuple[int, Result]]:
    attempts = [1] * len(items)
    pending: dict[Future[Result], int] = {
        pool.schedule(_call, args=[function, item]): index for index, item in enumerate(items)
    }
    while pending:
        done, _ = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        _pass_on(reports, report)
        for future in done:
            index = pending.pop(future)
            try:
                result = future.result()
            except pebble.ProcessExpired as error:
                if attempts[index] == MAX_ATTEMPTS:
                    raise RespikeError(
                        f"a worker died {MAX_ATTEMPTS} times at {items[index]!s:.80} (exit code {error.exitcode})",
                        "give each worker more memory, or run with fewer --workers",
                    ) from error
                attempts[index] += 1
                pending[pool.schedule(_call, args=[function, items[index]])] = index
            else:
                yield index, result
    _pass_on(reports, report)


def _pass_on(reports: "multiprocessing.queues.Queue[int]", report: Callable[[int], None]) -> None:
    while True:
        try:
            report(reports.get_nowait())
        except queue.Empty:
            return


def _start_worker(reports: "multiprocessing.queues.Queue[int]") -> None:
    global _reports
    _reports = reports
    # a worker whose parent was killed must not go on writing
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _call(function: "Function[Item, Result]", item: Item) -> Result:
    return function(item, _report)


def _report(amount: int) -> None:
    if _reports is not None:
        _reports.put(amount)
