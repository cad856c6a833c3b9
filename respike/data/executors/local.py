"""Local executor: a job on a pool of worker processes of this machine."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic

import psutil

from respike.common.processes import KEEP_MEMORY, usable_cpus
from respike.data.executors.base import Item, Job, OnEvent, PendingResult, Result, WorkerDeath

# a worker process is replaced after so many items or bytes, so that a library that leaks cannot fill the machine
MAX_ITEMS_PER_WORKER = 64
MAX_WORKER_BYTES = 1 << 30
# a new process loads its libraries first, maybe over a slow network
_START_SECONDS = 60.0
_EXIT_SECONDS = 5.0
_POLL_SECONDS = 0.2
# what a worker process sends: an event of its item; "ready for the next item", with the bytes of memory in use; the
# result of an item, always after "ready"; an exception
_EVENT, _READY, _RESULT, _ERROR = "event", "ready", "result", "error"


def run(
    job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, on_event: OnEvent
) -> Iterator[tuple[int, Result]]:
    """Run the job on every item and yield (index of the item, result) as each is done.

    Keeps the promises of `base.Executor`. `num_workers` None means one per core that this process may use. Even a
    single worker is a process of its own, so that an item that crashes cannot end the caller.
    """
    return (done for done in run_in_steps(job, items, num_workers, on_event) if done is not None)


def run_in_steps(
    job: Job[Item, Result],
    items: Sequence[Item],
    num_workers: int | None,
    on_event: OnEvent,
    *,
    idle_processes: "IdleProcesses | None" = None,
) -> Iterator[tuple[int, Result] | None]:
    """Like `run`, but also yield None several times a second, so that the caller can do other work.

    With `idle_processes` the run takes processes from there, and leaves its own there at the end.
    """
    pool = _Pool(job, items, on_event, idle_processes)
    try:
        yield from pool.run(min(num_workers or usable_cpus(), len(items)))
    finally:
        pool.shutdown()


@dataclass
class _Worker:
    """One worker of the pool, and the process that serves as it now.

    The process is at two items at most: its function at `index`, a second thread waiting for the result of
    `pending_index`. Each is None if there is none. `last_event` and `pending_event` are the last events of the two.
    """

    number: int
    process: "_WorkerProcess | None" = None
    index: int | None = None
    last_event: object | None = None
    pending_index: int | None = None
    pending_event: object | None = None
    needs_replacement: bool = False
    silent_seconds: float = 0.0


class _Pool(Generic[Item, Result]):
    """The workers of one run, and the queue of items."""

    def __init__(
        self, job: Job[Item, Result], items: Sequence[Item], on_event: OnEvent, idle_processes: "IdleProcesses | None"
    ) -> None:
        self._job, self._items, self._on_event, self._idle_processes = job, items, on_event, idle_processes
        self._queue = deque(enumerate(items))
        self._workers: list[_Worker] = []
        self._deaths: dict[int, list[WorkerDeath]] = {}
        # items at which a worker died share a process with no other item: the next death is certainly theirs
        self._alone: set[int] = set()

    def run(self, num_workers: int) -> Iterator[tuple[int, Result] | None]:
        self._workers = [_Worker(number) for number in range(num_workers)]
        for worker in self._workers:
            self._assign(worker)
        last_check = time.monotonic()
        while busy := {worker.process.connection: worker for worker in self._workers if worker.process is not None}:
            ready: list[Any] = wait(list(busy), timeout=_POLL_SECONDS)
            for connection in ready:
                yield from self._receive(busy[connection])
            now = time.monotonic()
            # time in which this process itself was stopped (Ctrl-Z, a slow caller) does not count against the workers
            self._end_silent_workers(min(now - last_check, 2 * _POLL_SECONDS))
            last_check = now
            yield None

    def shutdown(self) -> None:
        for worker in self._workers:
            self._end_process(worker)

    def _assign(self, worker: _Worker) -> None:
        """Give the next item to a worker that is at none; end its process if no item is left for it."""
        if worker.pending_index is not None:
            # while a result is pending, the next item may have to wait for it
            if not self._queue or worker.needs_replacement or {worker.pending_index, self._queue[0][0]} & self._alone:
                return
        elif worker.needs_replacement:
            self._end_process(worker)
        elif not self._queue and worker.process is not None and self._idle_processes is not None:
            self._idle_processes.keep(worker.process)
            worker.process = None
        elif not self._queue:
            self._end_process(worker)
        if not self._queue:
            return
        worker.index, item = self._queue.popleft()
        worker.last_event, worker.silent_seconds = None, 0.0
        if worker.process is None and self._idle_processes is not None:
            worker.process = self._idle_processes.take()
        worker.process = worker.process or _WorkerProcess()
        worker.process.send(self._job.function, item)

    def _receive(self, worker: _Worker) -> Iterator[tuple[int, Result]]:
        assert worker.process is not None
        message = worker.process.receive()
        worker.silent_seconds = 0.0
        if message is None:
            self._requeue(worker, worker.process.wait())
            return
        kind, content = message
        if kind == _EVENT:
            worker.last_event = content
            self._on_event(worker.number, content)
        elif kind == _ERROR:
            raise content
        elif kind == _READY:
            assert worker.pending_index is None
            worker.pending_index, worker.pending_event, worker.index = worker.index, worker.last_event, None
            worker.needs_replacement = worker.process.num_items >= MAX_ITEMS_PER_WORKER or content > MAX_WORKER_BYTES
            self._assign(worker)
        else:
            index, worker.pending_index = worker.pending_index, None
            assert index is not None
            # first, because the caller may take its time over the result
            if worker.index is None:
                self._assign(worker)
            yield index, content

    def _end_silent_workers(self, seconds: float) -> None:
        """Kill the workers whose items reported nothing for too long, `seconds` after the last check."""
        timeout = self._job.timeout_seconds
        for worker in self._workers:
            worker.silent_seconds += seconds
            # while a result is pending, a slow disk may hold up the next item too
            if timeout is None or worker.process is None or worker.index is None or worker.pending_index is not None:
                continue
            if getattr(worker.last_event, "pauses_timeout", False):
                continue
            allowed = timeout if worker.last_event is not None else max(timeout, _START_SECONDS)
            # an event that has arrived but was not read yet counts
            if worker.silent_seconds > allowed and not worker.process.connection.poll():
                self._requeue(worker, worker.process.kill(), is_timeout=True)

    def _requeue(self, worker: _Worker, exit_code: int, *, is_timeout: bool = False) -> None:
        """Put the items of a dead worker back at the front of the queue, as the job's `retry` wants them.

        If the worker was at two items, nobody knows which of them ended it: the death is counted for neither.
        """
        at = [(worker.pending_index, worker.pending_event), (worker.index, worker.last_event)]
        lost = [(index, event) for index, event in at if index is not None]
        for index, event in reversed(lost):
            deaths = self._deaths.setdefault(index, [])
            if len(lost) == 1:
                deaths.append(WorkerDeath(last_event=event, exit_code=exit_code, is_timeout=is_timeout))
            self._alone.add(index)
            item = self._items[index]
            self._queue.appendleft((index, self._job.retry(item, tuple(deaths)) if deaths else item))
        self._end_process(worker)
        self._assign(worker)

    def _end_process(self, worker: _Worker) -> None:
        if worker.process is not None:
            worker.process.kill()
        worker.process, worker.index, worker.pending_index, worker.needs_replacement = None, None, None, False


class _WorkerProcess:
    """The parent's end of one worker process; `num_items` counts the items that were sent to it."""

    def __init__(self) -> None:
        self.num_items = 0
        ours, theirs = socket.socketpair()
        code = f"from {__name__} import serve; serve({theirs.fileno()})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
        # Ctrl-C reaches every process of the terminal, and the parent alone must answer it. The process inherits the
        # mask, so that it is safe from its first moment on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # what libraries print must not mix with results on stdout
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                env={**KEEP_MEMORY, **os.environ, "PYTHONPATH": path},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        self.connection = Connection(ours.detach())

    def send(self, function: Callable[..., Any], item: object) -> None:
        """Send an item. If the process is dead already, the next `receive` tells so."""
        self.num_items += 1
        with contextlib.suppress(OSError):
            self.connection.send((function, item))

    def receive(self) -> tuple[str, Any] | None:
        """Wait for the next message and return it; None if the process is dead."""
        try:
            message: tuple[str, Any] = self.connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def kill(self) -> int:
        """Kill the process if it still runs; return its exit code, negative for a signal."""
        if self._process.poll() is None:
            self._process.kill()
        self.connection.close()
        try:
            return self._process.wait(timeout=_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            # it waits in the kernel for a disk that does not answer, and ends when that does
            return -signal.SIGKILL

    def wait(self) -> int:
        """Wait for a process that closed its connection; return its exit code, negative for a signal."""
        try:
            return self._process.wait(timeout=_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return self.kill()


class IdleProcesses:
    """Keeps the processes of a run that has ended for the next one, for about `idle_seconds`."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._processes: queue.SimpleQueue[_WorkerProcess] = queue.SimpleQueue()

    def keep(self, process: _WorkerProcess) -> None:
        """Add a process that is at no item."""
        self._processes.put(process)
        timer = threading.Timer(self._idle_seconds, self._end_one)
        timer.daemon = True
        timer.start()

    def take(self) -> _WorkerProcess | None:
        """Remove a process and return it; None if there is none, or if it is dead."""
        with contextlib.suppress(queue.Empty):
            process = self._processes.get_nowait()
            # an idle process sends nothing: what there is to read is its end
            if not process.connection.poll():
                return process
            process.kill()
        return None

    def _end_one(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._processes.get_nowait().kill()


def _has_descriptor(stream: Any) -> bool:
    try:
        return bool(stream.fileno() >= 0)
    except (OSError, AttributeError, ValueError):
        return False


def serve(descriptor: int) -> None:
    """Run items for the parent process at the other end of the socket. Ends at once when the parent ends.

    This is the main function of a worker process.
    """
    parent = _ParentConnection(Connection(descriptor))
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(parent.connection, inbox), daemon=True).start()
    process = psutil.Process()
    pending: threading.Thread | None = None
    while True:
        content = inbox.get()
        try:
            # safe to unpickle: it comes from our own parent, over a socket that nobody else has
            function, item = ForkingPickler.loads(content)
            result = function(item, lambda event: parent.send(_EVENT, event))
        except Exception as error:
            parent.send_error(error)
            continue
        if pending is not None:
            pending.join()
        parent.send(_READY, process.memory_info().rss)
        pending = threading.Thread(target=_send_result, args=(parent, result), daemon=True)
        pending.start()


def _listen(connection: "Connection[Any, Any]", inbox: "queue.SimpleQueue[bytes]") -> None:
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        # the parent was killed: a worker that nobody watches must not go on writing
        os._exit(1)


def _send_result(parent: "_ParentConnection", result: object) -> None:
    try:
        parent.send(_RESULT, result.wait() if isinstance(result, PendingResult) else result)
    except Exception as error:
        parent.send_error(error)
    except BaseException:
        # it would end this thread alone, and the parent would wait for the result forever
        os._exit(1)


class _ParentConnection:
    """The worker's end of the socket, shared by its two threads."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self.connection = connection
        self._lock = threading.Lock()

    def send(self, kind: str, content: object) -> None:
        """Send a message. An exception of pickling is raised before anything is sent."""
        self._send_bytes(bytes(ForkingPickler.dumps((kind, content))))

    def send_error(self, error: Exception) -> None:
        """Send an exception, as a RuntimeError with its text if it does not pickle."""
        try:
            message = bytes(ForkingPickler.dumps((_ERROR, error)))
            # some exceptions pickle but do not unpickle
            ForkingPickler.loads(message)
        except Exception:
            text = f"{type(error).__name__}: {error}"
            message = bytes(ForkingPickler.dumps((_ERROR, RuntimeError(text))))
        self._send_bytes(message)

    def _send_bytes(self, message: bytes) -> None:
        with self._lock:
            self.connection.send_bytes(message)
