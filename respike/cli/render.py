"""What people see: bars, tables, facts. The only importer of rich. Progress goes to stderr, results to stdout."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from respike.progress import SILENCE, Task
from respike.progress import Progress as ProgressProtocol

# without a terminal a line every few seconds: enough for a log, few enough to read
_LINE_SECONDS = 5.0


def make_progress(*, quiet: bool = False, json: bool = False) -> ProgressProtocol:
    """The progress that fits: bars on a terminal, lines in a log, nothing for scripts or where quiet is wanted."""
    if quiet or json:
        return SILENCE
    console = Console(stderr=True, highlight=False)
    return _Bars(console) if console.is_terminal else _Lines(console)


def print_json(value: object) -> None:
    """Print one JSON value for scripts."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_facts(facts: Mapping[str, object], title: str = "") -> None:
    """Print names and values in two columns."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console(highlight=False).print(table)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print rows under headings; all columns but the first stand right."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(highlight=False).print(table)


def print_line(text: str) -> None:
    """Print one line as it is."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def format_bytes(count: float) -> str:
    """A size for people: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_share(share: float) -> str:
    """A share from 0 to 1 as a percentage."""
    return f"{share:.1%}"


def _format_facts(facts: Mapping[str, Any]) -> str:
    shown = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())
    return " · ".join(shown)


class _Bars:
    """Progress as bars on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.fields[goal]} {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[facts]}"),
        )
        with Progress(*columns, console=self._console, transient=False, expand=False) as progress:
            goal = "?" if total is None else f"{total:.0f}"
            number = progress.add_task(name, total=total, goal=goal, rate=unit, facts="")
            yield _Bar(progress, number, unit)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False)

    def warn(self, message: str) -> None:
        self._console.print(f"warning: {message}", style="yellow", markup=False)


class _Bar:
    """One bar with its rate."""

    def __init__(self, progress: Progress, number: TaskID, unit: str) -> None:
        self._progress, self._number, self._unit = progress, number, unit
        self._started, self._done = time.monotonic(), 0.0
        self._facts: dict[str, str | float] = {}

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        self._done += amount
        self._facts |= facts
        rate = self._done / max(1e-3, time.monotonic() - self._started)
        self._progress.update(
            self._number, advance=amount, rate=f"{self._unit} {rate:.1f}/s", facts=_format_facts(self._facts)
        )


class _Lines:
    """Progress as plain lines for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        line = _Line(self, name, total, unit)
        yield line
        line.show(final=True)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")


class _Line:
    """A task that tells how far it is from time to time."""

    def __init__(self, lines: _Lines, name: str, total: float | None, unit: str) -> None:
        self._lines, self._name, self._total, self._unit = lines, name, total, unit
        self._started = self._shown = time.monotonic()
        self._done = 0.0
        self._facts: dict[str, str | float] = {}

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        self._done += amount
        self._facts |= facts
        if time.monotonic() - self._shown >= _LINE_SECONDS:
            self.show()

    def show(self, *, final: bool = False) -> None:
        self._shown = time.monotonic()
        seconds = max(1e-3, self._shown - self._started)
        rate = self._done / seconds
        goal = "" if self._total is None else f"/{self._total:.0f}"
        parts = [f"{self._name}: {self._done:.0f}{goal} {self._unit}", f"{rate:.1f}/s"]
        if final:
            parts.append(f"took {format_seconds(seconds)}")
        elif self._total is not None and rate > 0:
            parts.append(f"{format_seconds((self._total - self._done) / rate)} left")
        if self._facts:
            parts.append(_format_facts(self._facts))
        self._lines.say(" · ".join(parts))
