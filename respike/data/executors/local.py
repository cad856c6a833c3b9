"""Local executor: a job on the worker processes of one machine."""

import contextlib
import itertools
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
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic

import psutil

from respike.common.processes import KEEP_MEMORY
from respike.data.executors.base import Item, Job, PendingResult, Result, Watch, WorkerDeath

# what a child says: how far it is; that it can take the next item, and how many bytes it occupies; a result, which
# comes after that; why there is none
NOTE, FREE, RESULT, ERROR = "note", "free", "result", "error"
_PATIENCE_SECONDS = 5.0


class _WorkerProcess:
    """The parent's end of one worker process; `num_given` counts the items that it was handed."""

    def __init__(self) -> None:
        self.num_given = 0
        ours, theirs = socket.socketpair()
        code = f"from {__name__} import serve; serve({theirs.fileno()})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
        # Ctrl-C reaches every process of the terminal; the parent alone answers it. A mask is inherited from the
        # start, so that the child cannot be hit while it starts.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # what libraries print belongs to no result
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                env={**KEEP_MEMORY, **os.environ, "PYTHONPATH": path},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self.connection = Connection(ours.detach())

    def give(self, function: Callable[..., Any], item: object) -> None:
        """Hand over an item. A child that has died already is noticed by the next `receive`."""
        self.num_given += 1
        with contextlib.suppress(OSError):
            self.connection.send((function, item))

    def receive(self) -> tuple[str, Any] | None:
        """The next message, waiting for it; None where the child has died."""
        try:
            message: tuple[str, Any] = self.connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self) -> int:
        """Kill the child if it still runs; return how it ended, negative for a signal."""
        if self._process.poll() is None:
            self._process.kill()
        self.connection.close()
        try:
            return self._process.wait(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            # it waits in the kernel for a disk that does not answer, and goes when that does
            return -signal.SIGKILL

    def exit_code(self) -> int:
        """Wait for a child that has hung up; return how it ended, negative for a signal."""
        try:
            return self._process.wait(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return self.end()


def _has_descriptor(stream: Any) -> bool:
    try:
        return bool(stream.fileno() >= 0)
    except (OSError, AttributeError, ValueError):
        return False


def serve(descriptor: int) -> None:
    """Work for the parent at the other end of the socket until it hangs up; then end at once, in mid-work too."""
    voice = _ParentPipe(Connection(descriptor))
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(voice.connection, inbox), daemon=True).start()
    process = psutil.Process()
    settling: threading.Thread | None = None
    while True:
        content = inbox.get()
        try:
            # from our own parent, over a socket that nobody else has
            function, item = ForkingPickler.loads(content)
            result = function(item, lambda note: voice.say(NOTE, note))
        except Exception as error:
            voice.tell(error)
            continue
        if settling is not None:
            settling.join()
        voice.say(FREE, process.memory_info().rss)
        settling = threading.Thread(target=_settle, args=(voice, result), daemon=True)
        settling.start()


def _settle(voice: "_ParentPipe", result: object) -> None:
    try:
        voice.say(RESULT, result.settle() if isinstance(result, PendingResult) else result)
    except Exception as error:
        voice.tell(error)
    except BaseException:
        # it would end this thread alone, and the parent would wait for the result for ever
        os._exit(1)


class _ParentPipe:
    """The child's end of the socket, for the thread that works and the one that settles."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self.connection = connection
        self._lock = threading.Lock()

    def say(self, kind: str, content: object) -> None:
        """Send a message. Raises what pickling raises, before anything is sent."""
        self._send(bytes(ForkingPickler.dumps((kind, content))))

    def tell(self, error: Exception) -> None:
        """Send an error, in another form if it cannot travel in its own."""
        self._send(_pickle_error(error))

    def _send(self, message: bytes) -> None:
        with self._lock:
            self.connection.send_bytes(message)


def _listen(connection: "Connection[Any, Any]", inbox: "queue.SimpleQueue[bytes]") -> None:
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        # a worker whose parent was killed must not go on writing
        os._exit(1)


def _pickle_error(error: Exception) -> bytes:
    try:
        content = bytes(ForkingPickler.dumps((ERROR, error)))
        # some exceptions can be sent but not made again
        ForkingPickler.loads(content)
    except Exception:
        return bytes(ForkingPickler.dumps((ERROR, RuntimeError(f"{type(error).__name__}: {error}"))))
    return content


class Spare:
    """Keeps at most one idle child, and ends it after `idle_seconds` without work."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._child: _WorkerProcess | None = None
        self._timer: threading.Timer | None = None

    def take(self) -> _WorkerProcess | None:
        """The child that waits, which is the caller's from now on; None where none waits or it has died."""
        child = self._swap(None)
        # an idle child says nothing, so what there is to read is its end
        if child is not None and child.connection.poll():
            child.end()
            return None
        return child

    def keep(self, child: _WorkerProcess) -> None:
        """Let a child that is at no item wait here."""
        timer = threading.Timer(self._idle_seconds, self._end, [child])
        timer.daemon = True
        before = self._swap(child, timer)
        if before is not None:
            before.end()
        timer.start()

    def _swap(self, child: _WorkerProcess | None, timer: threading.Timer | None = None) -> _WorkerProcess | None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            before, self._child, self._timer = self._child, child, timer
        return before

    def _end(self, child: _WorkerProcess) -> None:
        with self._lock:
            # it may have been taken while the timer was about to ring
            is_here, self._child = self._child is child, None if self._child is child else self._child
        if is_here:
            child.end()


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
    crew = _Pool(job, items, spare)
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
    child: _WorkerProcess | None = None
    index: int | None = None
    note: object | None = None
    settling: int | None = None
    settling_note: object | None = None
    is_worn: bool = False
    silent_seconds: float = 0.0


@dataclass
class _Pool(Generic[Item, Result]):
    """The workers of one run, and the items that wait for them."""

    job: Job[Item, Result]
    items: Sequence[Item]
    spare: Spare | None
    workers: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = deque(enumerate(self.items))
        self._deaths: dict[int, list[WorkerDeath]] = {}
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
        worker.child = worker.child or (self.spare and self.spare.take()) or _WorkerProcess()
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
                deaths.append(WorkerDeath(note=note, exit_code=exit_code, hung=hung))
            self._alone.add(index)
            item = self.items[index]
            self._waiting.appendleft((index, self.job.recover(item, tuple(deaths)) if deaths else item))
        self._replace(worker)
        self._employ(worker)

    def _replace(self, worker: _Worker) -> None:
        if worker.child is not None:
            worker.child.end()
        worker.child, worker.index, worker.settling, worker.is_worn = None, None, None, False
