"""Stopping: SIGTERM or Ctrl-C asks a training to save and stop; a second one ends it at once."""

import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from respike.errors import RespikeError, StoppedError

if TYPE_CHECKING:
    from respike.sample import Batch, BatchSource

# a shell's codes for what a signal has ended
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class StopSignals:
    """While its block runs, the first signal only makes `is_asked` true."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in CODES:
            try:
                self._before[number] = signal.signal(number, self._receive)
            except ValueError:  # not in the main thread: whoever embeds us keeps its own handlers
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

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

    def watch(self, source: "BatchSource") -> "BatchSource":
        """The same batches; a pass through them ends in StoppedError once a signal has come."""
        return _Watched(source, self)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        # the next one is not to be waited out
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python and cannot be set back from it
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}


class _Watched:
    """A BatchSource that looks for a signal before each batch."""

    def __init__(self, source: "BatchSource", signals: StopSignals) -> None:
        self._source, self._signals = source, signals

    def __iter__(self) -> "Iterator[Batch]":
        for batch in self._source:
            if self._signals.is_asked():
                raise StoppedError("training stopped while validating; what was trained is saved", "")
            yield batch

    def __len__(self) -> int:
        return len(self._source)

    def set_epoch(self, epoch: int) -> None:
        self._source.set_epoch(epoch)


class ProcessError(RespikeError):
    """An error that ends the program with a code of its own."""

    def __init__(self, problem: str, hint: str, code: int) -> None:
        super().__init__(problem, hint)
        self.code = code
