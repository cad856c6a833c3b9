"""Signals: the first one asks a training to save and stop; Ctrl-C or SIGTERM after it ends the training at once."""

import os
import signal
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from respike.common.errors import RespikeError, StoppedError

if TYPE_CHECKING:
    from respike.types import Batch, CountedSource


_EVENTS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminal closed (SIGHUP)",
    signal.SIGUSR1: "warned by the batch system (SIGUSR1)",
}
# These end the training at once if a signal came before. The others do not: a terminal that closes sends SIGHUP more
# than once, and so do torchrun and SLURM, which pass signals on.
_URGENT = (signal.SIGINT, signal.SIGTERM)
_URGENT_NAMES = {signal.SIGINT: "Ctrl-C again", signal.SIGTERM: "SIGTERM again"}
# a shell's exit code for a program that a signal ended is this plus the signal's number
_EXIT_CODE_BASE = 128
# no signal has this number
_END_OF_PIPE = 0


class GracefulShutdown:
    """A context in which the first signal only sets `stop_requested`; `warn` gets a line about it at once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._pipe: _SignalPipe | None = None
        self._received: signal.Signals | None = None
        self._earlier_handlers: dict[signal.Signals, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> "GracefulShutdown":
        for number in _EVENTS:
            # nohup ignores SIGHUP so that a training outlives its terminal
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                self._earlier_handlers[number] = signal.signal(number, self._receive)
            except ValueError:  # not in the main thread: the program that embeds us keeps its handlers
                break
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        if self._earlier_handlers:
            self._pipe = _SignalPipe(self._announce)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore(*_EVENTS)
        if self._pipe is not None:
            self._pipe.close()

    def stop_requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._received is not None

    @property
    def code(self) -> int:
        """The exit code for the signal; that of SIGTERM if another process got the signal."""
        return _EXIT_CODE_BASE + (self._received or signal.SIGTERM)

    @property
    def word(self) -> str:
        """What happened, such as "interrupted" or "terminated"."""
        return _EVENTS[self._received or signal.SIGTERM]

    def watch(self, source: "CountedSource") -> "CountedSource":
        """Return the same batches; iterating raises StoppedError after a signal has arrived."""
        return _InterruptibleSource(source, self)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = signal.Signals(number)
        # the next Ctrl-C or SIGTERM ends the program at once
        self._restore(*_URGENT)
        if number == signal.SIGHUP:
            self._leave_closed_terminals()
        elif number in _URGENT and self._pipe is not None and self._pipe.num_urgent > 1:
            # a second signal arrived before the first was handled, and Python merges the two into one call
            signal.raise_signal(number)

    def _announce(self, number: signal.Signals) -> None:
        self._warn(
            f"{_EVENTS[number]}: stopping after this batch, once all is saved; "
            f"{_URGENT_NAMES.get(number, 'Ctrl-C or SIGTERM')} stops at once, without saving"
        )

    def _leave_closed_terminals(self) -> None:
        """Discard what is still written to a closed terminal: the error of a write would prevent the save."""
        for descriptor in self._terminals:
            try:
                termios.tcgetattr(descriptor)
            except termios.error:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)

    def _restore(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            if number in self._earlier_handlers:
                handler = self._earlier_handlers.pop(number)
                # None: a handler that was not set from Python and cannot be restored
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _SignalPipe:
    """A thread that notices signals at once; `announce` gets the first one.

    Python runs signal handlers only between two bytecodes. The backward pass of a large batch is a single call, which
    takes a minute on a CPU.
    """

    def __init__(self, announce: Callable[[signal.Signals], None]) -> None:
        self.num_urgent = 0
        self._is_announced = False
        self._announce = announce
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._earlier_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        signal.set_wakeup_fd(self._earlier_wakeup)
        os.write(self._write_end, bytes([_END_OF_PIPE]))
        self._thread.join()
        os.close(self._write_end)
        os.close(self._read_end)

    def _listen(self) -> None:
        while (number := os.read(self._read_end, 1)[0]) != _END_OF_PIPE:
            self.num_urgent += number in _URGENT
            if number in _EVENTS and not self._is_announced:
                self._is_announced = True
                # the terminal or pipe that shows the line may be closed
                with suppress(OSError):
                    self._announce(signal.Signals(number))


class _InterruptibleSource:
    """A source of batches that checks for a signal before each batch."""

    def __init__(self, source: "CountedSource", signals: GracefulShutdown) -> None:
        self._source, self._signals = source, signals

    def __iter__(self) -> "Iterator[Batch]":
        for batch in self._source:
            if self._signals.stop_requested():
                raise StoppedError("training stopped during validation; all trained steps are saved", "")
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


class ExitCodeError(RespikeError):
    """An error that ends the program with its own exit `code`."""

    def __init__(self, problem: str, hint: str, code: int) -> None:
        super().__init__(problem, hint)
        self.code = code
