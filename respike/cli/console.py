"""Console: what commands print: facts, tables, JSON, errors and progress. The only file that imports rich."""

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

from respike.common.progress import SILENCE, Progress, Silence, Task
from respike.common.text import format_bytes, format_count, format_rate, format_seconds, format_share

__all__ = [
    "LineProgress",
    "QuietProgress",
    "escape",
    "fold",
    "format_bytes",
    "format_facts",
    "format_rate",
    "format_seconds",
    "format_share",
    "make_progress",
    "print_error",
    "print_facts",
    "print_json",
    "print_line",
    "print_table",
    "share_width",
]

# wide enough that nothing is folded: pipes and logs are searched line by line
_UNFOLDED_WIDTH = 10_000
# spaces after each column of a table
_GAP = 2
# a column of words is not made narrower than this by folding
_MIN_WORDS_WIDTH = 12
# folding breaks before a space, and after a dot, slash, comma or hyphen within a name or path. It never breaks within a
# number or after the dashes of an option.
_BREAK = re.compile(r"(?<=\S)(?=\s)|(?<=\w[./,-])(?=[^\W\d])")


def print_json(value: object) -> None:
    """Print one JSON value on one line, in ASCII, which every terminal can show."""
    sys.stdout.write(json.dumps(value) + "\n")


def print_line(text: str, *, folds: bool = False) -> None:
    """Print one line unchanged, however long. With `folds` a terminal folds it between words."""
    console = _console(sys.stdout)
    console.print(_folded(escape(text), console.width if folds else _UNFOLDED_WIDTH), soft_wrap=True)


def print_facts(facts: Mapping[str, object], title: str = "") -> None:
    """Print names and values in two columns; values are folded between words."""
    _print_pairs([(escape(name), escape(str(value))) for name, value in facts.items()], title)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print rows under the headings `columns`; numbers are aligned to the right, words to the left.

    Words may be folded, numbers are not. On a terminal that is too narrow for the numbers, each row is printed as
    facts.
    """
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    layout = _lay_out(columns, cells, _console(sys.stdout).width)
    if layout is None:
        for number, row in enumerate(cells):
            _print_pairs(list(zip(columns, row, strict=True)), title if number == 0 else "")
            sys.stdout.write("\n" if number < len(cells) - 1 else "")
        return
    table = Table(header_style="bold", box=None, padding=(0, _GAP, 0, 0))
    for heading, column in zip(columns, layout, strict=True):
        table.add_column(_folded(heading, column.width), justify=column.justify, width=column.width, no_wrap=True)
    for row in cells:
        table.add_row(*(_folded(cell, column.width) for cell, column in zip(row, layout, strict=True)))
    _print_rich_table(table, title)


def print_error(problem: str, hint: str = "", *, as_json: bool = False) -> None:
    """Print a problem and what to do about it on stderr: a line each, or one JSON object `{"error", "hint"}`."""
    if as_json:
        sys.stderr.write(json.dumps({"error": problem, "hint": hint}) + "\n")
        return
    console = _console(sys.stderr)
    console.print(Text.assemble(("error: ", "bold red"), escape(problem)), soft_wrap=True)
    if hint:
        console.print(Text.assemble(("hint: ", "yellow"), escape(hint)), soft_wrap=True)


def make_progress(*, quiet: bool = False, json: bool = False) -> Progress:
    """Return a Progress on stderr: bars on a terminal, otherwise a line every few seconds.

    With `quiet` it prints only warnings. With `json` it prints nothing: scripts find everything in the JSON.
    """
    if json:
        return SILENCE
    console = _console(sys.stderr)
    if quiet or not console.is_terminal:
        write = partial(_write_line, console)
        return QuietProgress(write) if quiet else LineProgress(write)
    return _BarProgress(console)


def escape(text: str) -> str:
    """Return `text` on one line and harmless to a terminal.

    Control characters and bytes that are not text are written as escape sequences.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def _console(file: TextIO) -> Console:
    # made for each call, because tests and embedding programs replace the streams
    width = None if file.isatty() else _UNFOLDED_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def _write_line(console: Console, line: str) -> None:
    style = "yellow" if line.startswith("warning: ") else ""
    console.print(Text(escape(line), style=style), soft_wrap=True)


# folding and column widths


def fold(text: str, width: int) -> str:
    """Return `text` in lines of at most `width` columns of a terminal."""
    lines = [""]
    for piece in _BREAK.split(text):
        rest = piece
        if lines[-1] and cell_len(lines[-1] + rest) > width:
            lines.append("")
            rest = rest.lstrip()
        while cell_len(rest) > width:
            num_fitting = max(1, sum(cell_len(rest[: end + 1]) <= width for end in range(len(rest))))
            lines[-1] = rest[:num_fitting]
            lines.append("")
            rest = rest[num_fitting:]
        lines[-1] += rest
    return "\n".join(lines)


def _folded(text: str, width: int) -> Text:
    return Text(fold(text, width))


@dataclass(frozen=True)
class _Column:
    """Width and alignment of a column of a table; numbers are aligned to the right."""

    width: int
    justify: Literal["left", "right"]


def _lay_out(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[_Column] | None:
    """Return columns that fit into `width` without a broken word or number, None if that is not possible."""
    wanted, minimal = [], []
    justified: list[Literal["left", "right"]] = []
    for number, heading in enumerate(headings):
        cells = [row[number] for row in rows]
        is_number = number > 0 and all(cell[:1].isdigit() or cell in ("", "–") for cell in cells)
        wanted.append(max(map(cell_len, (heading, *cells))))
        longest_piece = max(cell_len(piece) for text in (heading, *cells) for piece in _BREAK.split(text))
        minimal.append(wanted[-1] if is_number else min(wanted[-1], max(_MIN_WORDS_WIDTH, longest_piece)))
        justified.append("right" if is_number else "left")
    widths = share_width(wanted, minimal, width - _GAP * len(headings))
    return None if widths is None else [_Column(*each) for each in zip(widths, justified, strict=True)]


def share_width(wanted: Sequence[int], minimal: Sequence[int], available: int) -> list[int] | None:
    """Return widths of columns that fit into `available`, the widest reduced first; None if `minimal` does not fit."""
    widths = list(wanted)
    while sum(widths) > available:
        reducible = [number for number, width in enumerate(widths) if width > minimal[number]]
        if not reducible:
            return None
        widths[max(reducible, key=widths.__getitem__)] -= 1
    return widths


def _print_pairs(pairs: Sequence[tuple[str, str]], title: str) -> None:
    names_width = max((cell_len(name) for name, _ in pairs), default=0)
    values_width = max(_MIN_WORDS_WIDTH, _console(sys.stdout).width - names_width - 2 * _GAP)
    table = Table(show_header=False, box=None, padding=(0, _GAP, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), _folded(value, values_width))
    _print_rich_table(table, title)


def _print_rich_table(table: Table, title: str) -> None:
    """Print a table without the spaces that fill its last column, below its title, which may be wider."""
    console = _console(sys.stdout)
    if title:
        console.print(Text(escape(title), style="italic"), soft_wrap=True)
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


# progress without a terminal

# enough for a log, few enough to read
SECONDS_BETWEEN_LINES = 5.0


class QuietProgress(Silence):
    """A Progress that prints only warnings, by `write`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def warn(self, message: str) -> None:
        """Print one line."""
        self._write(f"warning: {message}")


class LineProgress:
    """A Progress for logs: a line when a task starts, one every few seconds, one when it is done.

    A task within a task only prints lines if it lasts: a hundred short validations would hide the epochs.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._num_open = 0

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """Open a task that prints lines."""
        task = _LineTask(self._write, name, total, unit)
        is_outermost = self._num_open == 0
        if is_outermost:
            task.start()
        self._num_open += 1
        try:
            yield task
        finally:
            self._num_open -= 1
        if is_outermost or task.has_printed:
            task.finish()

    def say(self, message: str) -> None:
        """Print one line."""
        self._write(message)

    def warn(self, message: str) -> None:
        """Print one line."""
        self._write(f"warning: {message}")


class _LineTask:
    """A task that prints from time to time how far it is."""

    def __init__(self, write: Callable[[str], None], name: str, total: float | None, unit: str) -> None:
        self._write, self._name, self._total, self._unit = write, name, total, unit
        self._started_at = self._printed_at = time.monotonic()
        self._num_done = 0.0
        self._facts: dict[str, str | float] = {}
        self.has_printed = False

    def start(self) -> None:
        self._write(f"{self._name}: {self._format_count()}")

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        self._num_done += amount
        self._facts |= facts
        now = time.monotonic()
        # the last unit is printed by `finish`
        if now - self._printed_at >= SECONDS_BETWEEN_LINES and self._num_done != self._total:
            self._printed_at, self.has_printed = now, True
            self._print(now - self._started_at, is_final=False)

    def at(self, worker: int, what: str) -> None:
        """Print nothing: there would be too many lines for a log."""

    def finish(self) -> None:
        self._print(time.monotonic() - self._started_at, is_final=True)

    def _format_count(self) -> str:
        count = format_count(self._num_done, self._total, self._unit)
        return count if self._unit == "bytes" else f"{count} {self._unit}"

    def _print(self, seconds: float, *, is_final: bool) -> None:
        rate = self._num_done / max(1e-3, seconds)
        parts = [f"{self._name}: {self._format_count()}", format_rate(rate, self._unit)]
        if is_final:
            parts.append(f"took {format_seconds(seconds)}")
        elif self._total is not None and rate > 0:
            parts.append(f"{format_seconds((self._total - self._num_done) / rate)} left")
        if self._facts:
            parts.append(format_facts(self._facts))
        self._write(" · ".join(parts))


def format_facts(facts: Mapping[str, str | float]) -> str:
    """Return the facts of a task on one line: loss 0.123 · skipped 2."""
    shown = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())
    return " · ".join(shown)


# progress on a terminal

# a narrower terminal shows only count and time left
_MIN_WIDTH_FOR_RATE = 60
_MAX_SHOWN_WORKERS = 8


class _BarProgress:
    """A Progress of bars: that of the outermost task stays, those within it are removed when they are done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display: _Display | None = None

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        if self._display is None:
            with _Display(self._console) as display:
                self._display = display
                try:
                    yield _BarTask(display, display.start_bar(name, total, unit))
                finally:
                    self._display = None
        else:
            display = self._display
            number = display.start_bar(name, total, unit)
            try:
                yield _BarTask(display, number)
            finally:
                display.remove_task(number)

    def say(self, message: str) -> None:
        _write_line(self._console, message)

    def warn(self, message: str) -> None:
        _write_line(self._console, f"warning: {message}")


class _BarTask:
    """The task of one bar."""

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
    """Bars, and below them the facts of each task and a line for each worker of a task that is not done."""

    def __init__(self, console: Console) -> None:
        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=None)]
        columns.append(_CountColumn())
        if console.width >= _MIN_WIDTH_FOR_RATE:
            columns.append(_RateColumn())
        super().__init__(*columns, _TimeColumn(), console=console, expand=True)

    def start_bar(self, name: str, total: float | None, unit: str) -> TaskID:
        return self.add_task(escape(name), total=total, unit=unit, facts="", workers={})

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["facts"]:
                yield _dim(task.fields["facts"])
            workers = {} if task.finished else task.fields["workers"]
            for number in sorted(workers)[:_MAX_SHOWN_WORKERS]:
                yield _dim(f"  worker {number + 1}: {workers[number]}")
            if len(workers) > _MAX_SHOWN_WORKERS:
                yield _dim(f"  and {len(workers) - _MAX_SHOWN_WORKERS} more")


def _dim(text: str) -> Text:
    return Text(escape(text), style="dim", no_wrap=True, overflow="ellipsis")


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
