"""Signals: SIGTERM or Ctrl-C asks a training to save and stop; a second one ends it at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from respike.common.errors import RespikeError, StoppedError

if TYPE_CHECKING:
    from respike.types import Batch, CountedSource


# a shell's codes for what a signal has ended
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# no signal has this number
_END = 0


class GracefulShutdown:
    """While its block runs, the first signal only makes `is_asked` true; `tell` gets a line on that at once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._ear: _SignalPipe | None = None
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "GracefulShutdown":
        for number in CODES:
            try:
                self._before[number] = signal.signal(number, self._receive)
            except ValueError:  # not in the main thread: whoever embeds us keeps its own handlers
                break
        if self._before:
            self._ear = _SignalPipe(self._announce)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self._ear is not None:
            self._ear.close()

    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    @property
    def code(self) -> int:
        """The exit code of what has come; as for SIGTERM where another process got the signal."""
        return CODES[self._received or signal.SIGTERM]

    @property
    def word(self) -> str:
        """What happened, in one word."""
        return _WORDS[self._received or signal.SIGTERM]

    def watch(self, source: "CountedSource") -> "CountedSource":
        """The same batches; a pass through them ends in StoppedError once a signal has come."""
        return _InterruptibleSource(source, self)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        # the next one is not to be waited out
        self._restore()
        if self._ear is not None and self._ear.num_heard > 1:
            # it came before this one was handled, and Python makes one of the two
            signal.raise_signal(number)

    def _announce(self, number: signal.Signals) -> None:
        self._tell(
            f"{_WORDS[number]}: stopping after this batch, once all is saved; "
            f"{_NAMES[number]} again stops at once, without saving"
        )

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python and cannot be set back from it
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}


class _SignalPipe:
    """Hears signals as they come, in a thread: Python's handlers wait until torch is back from what it computes.

    The backward pass of a large batch is one such call, and takes a minute on a CPU. `tell` gets the first signal.
    """

    def __init__(self, tell: Callable[[signal.Signals], None]) -> None:
        self.num_heard = 0
        self._tell = tell
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)
        self._before = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear no more."""
        signal.set_wakeup_fd(self._before)
        os.write(self._in, bytes([_END]))
        self._thread.join()
        os.close(self._in)
        os.close(self._out)

    def _listen(self) -> None:
        while (number := os.read(self._out, 1)[0]) != _END:
            if number in CODES:
                self.num_heard += 1
                if self.num_heard == 1:
                    # whoever read it may have gone
                    with contextlib.suppress(OSError):
                        self._tell(signal.Signals(number))


class _InterruptibleSource:
    """A source of batches that looks for a signal before each batch."""

    def __init__(self, source: "CountedSource", signals: GracefulShutdown) -> None:
        self._source, self._signals = source, signals

    def __iter__(self) -> "Iterator[Batch]":
        for batch in self._source:
            if self._signals.is_asked():
                raise StoppedError("training stopped while validating; what was trained is saved", "")
            yield batch

    def __len__(self) -> int:
        return len(self._source)

    @property
    def is_training(self) -> bool:
        return self._source.is_training

    @property
    def num_views(self) -> int:
        return self._source.num_views

    def set_epoch(self, epoch: int) -> None:
        self._source.set_epoch(epoch)


class ProcessError(RespikeError):
    """An error that ends the program with a code of its own."""

    def __init__(self, problem: str, hint: str, code: int) -> None:
        super().__init__(problem, hint)
        self.code = code
