"""A worker process of the local engine: it takes items from its parent, one at a time, and sends notes and results.

While a result settles the next item is worked on; one settles at a time.

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

from respike.data.engines.base import Settling
from respike.memory import KEEP_MEMORY

# what a child says: how far it is; that it can take the next item, and how many bytes it occupies; a result, which
# comes after that; why there is none
NOTE, FREE, RESULT, ERROR = "note", "free", "result", "error"
_PATIENCE_SECONDS = 5.0


class Child:
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
    voice = _Voice(Connection(descriptor))
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


def _settle(voice: "_Voice", result: object) -> None:
    try:
        voice.say(RESULT, result.settle() if isinstance(result, Settling) else result)
    except Exception as error:
        voice.tell(error)
    except BaseException:
        # it would end this thread alone, and the parent would wait for the result for ever
        os._exit(1)


class _Voice:
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
