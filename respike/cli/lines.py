"""Lines: progress for logs, a plain line now and then, and the wording that bars share with them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from respike.progress import Task
from respike.wording import singular

# a line every few seconds: enough for a log, few enough to read
SECONDS_BETWEEN_LINES = 5.0


def format_bytes(count: float) -> str:
    """A size for people, in powers of a thousand: 1.5 MB."""
    if count < 999.5:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration for people: 4.2 s, 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_share(share: float) -> str:
    """A share from 0 to 1 as a percentage."""
    return f"{share:.1%}"


def format_count(done: float, total: float | None, unit: str, between: str = " of ") -> str:
    """How far work is: 3 of 12, or 1.5 MB of 2.0 GB for the unit `bytes`; without a total just the first."""
    shown = [done] if total is None else [done, total]
    return between.join(format_bytes(count) if unit == "bytes" else f"{count:.0f}" for count in shown)


def format_rate(per_second: float, unit: str) -> str:
    """How fast work goes: 12.3 videos/s, or, below one a second, 3.1 s/video for the unit `videos`; 1.5 MB/s."""
    if unit == "bytes":
        return f"{format_bytes(per_second)}/s"
    if per_second >= 1 or per_second <= 0:
        return f"{per_second:.1f} {unit}/s"
    return f"{1 / per_second:.1f} s/{singular(unit)}"


def format_facts(facts: Mapping[str, str | float]) -> str:
    """The facts of a task on one line: loss 0.123 · skipped 2."""
    shown = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())
    return " · ".join(shown)


def plain(text: str) -> str:
    """`text` on one line and harmless to a terminal: control characters and bytes that are no text are spelt out."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


class Warnings:
    """A Progress that tells nothing but warnings."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """Open a task that nobody sees."""
        yield self

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        """Take no notice."""

    def at(self, worker: int, what: str) -> None:
        """Take no notice."""

    def say(self, message: str) -> None:
        """Take no notice."""

    def warn(self, message: str) -> None:
        """Write one line."""
        self._write(f"warning: {message}")


class Lines(Warnings):
    """A Progress for logs: a line when work starts, one every few seconds, one when it is done.

    A task within a task speaks only if it lasts: a hundred short validations should not drown the epochs.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(write)
        self._num_open = 0

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """Open a task that tells how far it is."""
        line = _TaskLine(self._write, name, total, unit)
        is_outermost = self._num_open == 0
        if is_outermost:
            line.start()
        self._num_open += 1
        try:
            yield line
        finally:
            self._num_open -= 1
        if is_outermost or line.has_spoken:
            line.finish()

    def say(self, message: str) -> None:
        """Write one line."""
        self._write(message)


class _TaskLine:
    """A task that tells how far it is from time to time."""

    def __init__(self, write: Callable[[str], None], name: str, total: float | None, unit: str) -> None:
        self._write, self._name, self._total, self._unit = write, name, total, unit
        self._started = self._shown = time.monotonic()
        self._done = 0.0
        self._facts: dict[str, str | float] = {}
        self.has_spoken = False

    def start(self) -> None:
        """Write the line that opens the task."""
        self._write(f"{self._name}: {self._count()}")

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        """Count, and write a line if the last one is some seconds old."""
        self._done += amount
        self._facts |= facts
        now = time.monotonic()
        # the last unit is told by `finish`
        if now - self._shown >= SECONDS_BETWEEN_LINES and self._done != self._total:
            self._shown, self.has_spoken = now, True
            self._tell(now - self._started, is_final=False)

    def at(self, worker: int, what: str) -> None:
        """Take no notice: a log would drown in it."""

    def finish(self) -> None:
        """Write the line that ends the task."""
        self._tell(time.monotonic() - self._started, is_final=True)

    def _count(self) -> str:
        count = format_count(self._done, self._total, self._unit)
        if self._unit == "bytes":
            return count
        last = self._done if self._total is None else self._total
        return f"{count} {singular(self._unit) if last == 1 else self._unit}"

    def _tell(self, seconds: float, *, is_final: bool) -> None:
        rate = self._done / max(1e-3, seconds)
        parts = [f"{self._name}: {self._count()}", format_rate(rate, self._unit)]
        if is_final:
            parts.append(f"took {format_seconds(seconds)}")
        elif self._total is not None and rate > 0:
            parts.append(f"{format_seconds((self._total - self._done) / rate)} left")
        if self._facts:
            parts.append(format_facts(self._facts))
        self._write(" · ".join(parts))
