"""Console: tables, facts, errors and progress bars. The only importer of rich."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Literal, TextIO

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.table import Table
from rich.text import Text

from respike.common.progress import SILENCE, Progress, Task
from respike.common.text import format_bytes, format_count, format_rate, format_seconds, format_share, singular

# what a column of words is folded to at most, so that names stay readable
LEAST_WORDS = 12
# columns of a terminal after each of a table's
GAP = 2
# before a space; after a dot, slash, comma or hyphen within a name or path, never within a number or at its head
_JOINT = re.compile(r"(?<=\S)(?=\s)|(?<=\w[./,-])(?=[^\W\d])")


def fold(text: str, width: int, measure: Callable[[str], int] = len) -> str:
    """`text` in lines of at most `width` columns, where `measure` gives how many a text takes."""
    lines = [""]
    for piece in _JOINT.split(text):
        rest = piece
        if lines[-1] and measure(lines[-1] + rest) > width:
            lines.append("")
            rest = rest.lstrip()
        while measure(rest) > width:
            num_fitting = max(1, sum(measure(rest[: end + 1]) <= width for end in range(len(rest))))
            lines[-1] = rest[:num_fitting]
            lines.append("")
            rest = rest[num_fitting:]
        lines[-1] += rest
    return "\n".join(lines)


@dataclass(frozen=True)
class Column:
    """A column of a table: how wide it is, and where its text stands, right for numbers, which never fold."""

    width: int
    justify: Literal["left", "right"]


def lay_out(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, measure: Callable[[str], int] = len
) -> list[Column] | None:
    """How a table fits into `width` columns without a broken word or number; None where it does not."""
    widest, least = [], []
    justified: list[Literal["left", "right"]] = []
    for number, heading in enumerate(headings):
        cells = [row[number] for row in rows]
        is_number = number > 0 and all(cell[:1].isdigit() or cell in ("", "–") for cell in cells)
        widest.append(max(map(measure, (heading, *cells))))
        pieces = (longest_piece(text, measure) for text in (heading, *cells))
        least.append(widest[-1] if is_number else min(widest[-1], max(LEAST_WORDS, *pieces)))
        justified.append("right" if is_number else "left")
    widths = share_width(widest, least, width - GAP * len(headings))
    return None if widths is None else [Column(*each) for each in zip(widths, justified, strict=True)]


def longest_piece(text: str, measure: Callable[[str], int] = len) -> int:
    """The least width that breaks no word of `text`."""
    return max(map(measure, _JOINT.split(text)))


def share_width(widest: Sequence[int], least: Sequence[int], available: int) -> list[int] | None:
    """The widths of columns in `available`, the widest giving way first; None where even the least do not fit."""
    widths = list(widest)
    while sum(widths) > available:
        giving = [number for number, width in enumerate(widths) if width > least[number]]
        if not giving:
            return None
        widths[max(giving, key=widths.__getitem__)] -= 1
    return widths


# a line every few seconds: enough for a log, few enough to read
SECONDS_BETWEEN_LINES = 5.0


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


__all__ = [
    "format_bytes",
    "format_rate",
    "format_seconds",
    "format_share",
    "make_progress",
    "print_error",
    "print_facts",
    "print_json",
    "print_line",
    "print_table",
]

# wide enough never to fold: a pipe or a log is searched line by line
_UNFOLDED_WIDTH = 10_000
# below this many columns a bar keeps its count and its time left
_LEAST_WIDTH_FOR_RATE = 60
# more lines would leave no room for anything else
_MOST_WORKERS = 8


def make_progress(*, quiet: bool = False, json: bool = False) -> Progress:
    """The Progress that fits, on stderr: bars on a terminal, else a line now and then.

    With `quiet` it tells warnings alone, with `json` nothing: what scripts need to know stands in the JSON.
    """
    if json:
        return SILENCE
    console = _console(sys.stderr)
    if quiet or not console.is_terminal:
        write = partial(_write_line, console)
        return Warnings(write) if quiet else Lines(write)
    return _Bars(console)


def print_json(value: object) -> None:
    """Print one JSON value on one line, in ASCII, so that no terminal's encoding can break it."""
    sys.stdout.write(json.dumps(value) + "\n")


def print_facts(facts: Mapping[str, object], title: str = "") -> None:
    """Print names and values in two columns; a value folds between words."""
    _print_pairs([(plain(name), plain(str(value))) for name, value in facts.items()], title)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print rows under headings; a column of numbers stands right, a column of words left.

    Words may fold, numbers must not: where the terminal is too narrow for these, each row is told as facts.
    """
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    layout = lay_out(columns, cells, _console(sys.stdout).width, cell_len)
    if layout is None:
        for number, row in enumerate(cells):
            _print_pairs(list(zip(columns, row, strict=True)), title if number == 0 else "")
            sys.stdout.write("\n" if number < len(cells) - 1 else "")
        return
    table = Table(header_style="bold", box=None, padding=(0, GAP, 0, 0))
    for heading, column in zip(columns, layout, strict=True):
        table.add_column(_folded(heading, column.width), justify=column.justify, width=column.width, no_wrap=True)
    for row in cells:
        table.add_row(*(_folded(cell, column.width) for cell, column in zip(row, layout, strict=True)))
    _print(table, title)


def print_line(text: str, *, folds: bool = False) -> None:
    """Print one line as it is, however long; what nobody copies may fold between words on a terminal."""
    console = _console(sys.stdout)
    console.print(_folded(plain(text), console.width if folds else _UNFOLDED_WIDTH), soft_wrap=True)


def print_error(problem: str, hint: str = "", *, as_json: bool = False) -> None:
    """Print a problem and what to do about it on stderr: a line each, or one JSON object `{"error", "hint"}`."""
    if as_json:
        sys.stderr.write(json.dumps({"error": problem, "hint": hint}) + "\n")
        return
    console = _console(sys.stderr)
    console.print(Text.assemble(("error: ", "bold red"), plain(problem)), soft_wrap=True)
    if hint:
        console.print(Text.assemble(("hint: ", "yellow"), plain(hint)), soft_wrap=True)


def _console(file: TextIO) -> Console:
    # asked anew each time: tests and embedders exchange the streams
    width = None if file.isatty() else _UNFOLDED_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def _folded(text: str, width: int) -> Text:
    return Text(fold(text, width, cell_len))


def _print_pairs(pairs: Sequence[tuple[str, str]], title: str) -> None:
    names = max((cell_len(name) for name, _ in pairs), default=0)
    values = max(LEAST_WORDS, _console(sys.stdout).width - names - 2 * GAP)
    table = Table(show_header=False, box=None, padding=(0, GAP, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), _folded(value, values))
    _print(table, title)


def _print(table: Table, title: str) -> None:
    """Print a table without the spaces that fill its last column; above it its title, which may be wider."""
    console = _console(sys.stdout)
    if title:
        console.print(Text(plain(title), style="italic"), soft_wrap=True)
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def _write_line(console: Console, line: str) -> None:
    style = "yellow" if line.startswith("warning: ") else ""
    console.print(Text(plain(line), style=style), soft_wrap=True)


class _Bars:
    """Progress as bars on a terminal: the outermost task's stays, those within it go when they are done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display: _Display | None = None

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        if self._display is None:
            with _Display(self._console) as display:
                self._display = display
                try:
                    yield _Bar(display, display.start_bar(name, total, unit))
                finally:
                    self._display = None
        else:
            display = self._display
            number = display.start_bar(name, total, unit)
            try:
                yield _Bar(display, number)
            finally:
                display.remove_task(number)

    def say(self, message: str) -> None:
        _write_line(self._console, message)

    def warn(self, message: str) -> None:
        _write_line(self._console, f"warning: {message}")


class _Bar:
    """The Task behind one bar."""

    def __init__(self, display: "_Display", number: TaskID) -> None:
        self._display, self._number = display, number
        self._facts: dict[str, str | float] = {}
        self._workers: dict[int, str] = {}

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        self._facts |= facts
        self._display.update(self._number, advance=amount, facts=format_facts(self._facts))

    def at(self, worker: int, what: str) -> None:
        self._workers[worker] = what
        self._display.update(self._number, workers=dict(self._workers))


class _Display(RichProgress):
    """Bars with the facts of each task on a line of their own below, and a line for each worker while it is at it."""

    def __init__(self, console: Console) -> None:
        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=None)]
        columns.append(_CountColumn())
        if console.width >= _LEAST_WIDTH_FOR_RATE:
            columns.append(_RateColumn())
        super().__init__(*columns, _TimeColumn(), console=console, expand=True)

    def start_bar(self, name: str, total: float | None, unit: str) -> TaskID:
        return self.add_task(plain(name), total=total, unit=unit, facts="", workers={})

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["facts"]:
                yield _dim(task.fields["facts"])
            workers = {} if task.finished else task.fields["workers"]
            for number in sorted(workers)[:_MOST_WORKERS]:
                yield _dim(f"  worker {number + 1}: {workers[number]}")
            if len(workers) > _MOST_WORKERS:
                yield _dim(f"  and {len(workers) - _MOST_WORKERS} more")


def _dim(text: str) -> Text:
    return Text(plain(text), style="dim", no_wrap=True, overflow="ellipsis")


class _CountColumn(ProgressColumn):
    """3/12"""

    def render(self, task: RichTask) -> Text:
        return Text(format_count(task.completed, task.total, task.fields["unit"], "/"))


class _RateColumn(ProgressColumn):
    """12.3 videos/s"""

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text(format_rate(speed, task.fields["unit"]) if speed else task.fields["unit"])


class _TimeColumn(ProgressColumn):
    """0:03:05 left, and at the end: took 4 min 2 s"""

    def render(self, task: RichTask) -> Text:
        if task.finished:
            return Text(f"took {format_seconds(task.finished_time or 0)}")
        left = task.time_remaining
        return Text("" if left is None else f"{timedelta(seconds=round(left))} left")
