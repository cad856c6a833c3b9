"""A worker process of the local engine: it takes items from its parent, one at a time, and sends notes and results.

It is started as a program of its own and not by `multiprocessing`, which would run the caller's main script again, and
it talks over a socket of its own: a worker killed in mid-sentence can neither block nor garble another.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import psutil

from respike.memory import KEEP_MEMORY

NOTE, RESULT, ERROR = "note", "result", "error"
_PATIENCE_SECONDS = 5.0


class Child:
    """The parent's end of one worker process."""

    def __init__(self) -> None:
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
    connection = Connection(descriptor)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    process = psutil.Process()
    while True:
        content = inbox.get()
        try:
            # from our own parent, over a socket that nobody else has
            function, item = ForkingPickler.loads(content)
            result = function(item, lambda note: connection.send((NOTE, note)))
            answer = bytes(ForkingPickler.dumps((RESULT, (result, process.memory_info().rss))))
        except Exception as error:
            answer = _pickle_error(error)
        connection.send_bytes(answer)


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
