"""What commands print: tables, facts, errors, and progress in a pipe and on a terminal."""

import contextlib
import json
import re
import time

import pytest
from respike.cli import console
from respike.cli.console import LineProgress, QuietProgress, escape, fold, format_facts, share_width
from respike.cli.main import main
from respike.common.progress import SILENCE
from respike.common.text import format_rate

NARROW = 60


def work(progress) -> None:
    with progress.task("prepare", total=3, unit="videos") as task:
        task.advance(1, skipped=0)
        with progress.task("within", total=1, unit="clips") as inner:
            inner.advance()
        progress.warn("one is [red]broken[/red]")
        task.advance(2, skipped=1)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(console, "time", made)
    return made


# facts, tables, lines, errors


def test_facts_are_printed_unchanged_and_unfolded_in_a_pipe(capsys):
    path = "/very/long" * 30 + "/[bold]x[/bold]/:smile:"
    console.print_facts({"out": path, "a longer name": 3}, title="of [it]")
    assert capsys.readouterr().out.splitlines() == ["of [it]", f"out            {path}", "a longer name  3"]


def test_facts_are_folded_on_a_narrow_terminal(terminal):
    screen = terminal(60, NO_COLOR="1", TERM="dumb")
    console.print_facts({"out": "x" * 100})
    assert max(map(len, screen.getvalue().splitlines())) <= 60
    assert screen.getvalue().count("x") == 100


def test_numbers_are_aligned_right_and_words_left(capsys):
    console.print_table(("name", "clips", "what"), [("a", "5", "left"), ("bcd", "1,200", "words")])
    assert capsys.readouterr().out.splitlines() == [
        "name  clips  what",
        "a         5  left",
        "bcd   1,200  words",
    ]


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_numbers_are_whole_however_narrow_the_terminal(terminal, columns):
    screen = terminal(columns, NO_COLOR="1", TERM="dumb")
    headings = ("run", "data", *(f"number {n}" for n in range(6)))
    cells = [[f"runs/{'x' * 30}-{n}", "ucf101 split 1", *(f"12345.{n}{m}" for m in range(6))] for n in range(2)]
    console.print_table(headings, cells)
    printed = screen.getvalue()
    assert all(f"12345.{n}{m}" in printed for n in range(2) for m in range(6))
    assert max(map(len, printed.splitlines())) <= columns
    assert printed.count("number 5") == (1 if columns == 120 else 2)


def test_folding_breaks_no_word_and_no_number(terminal):
    screen = terminal(60, NO_COLOR="1", TERM="dumb")
    name, numbers = "snn.stages.0.blocks.0.shortcut.convolution", ("1,234.5 MMAC", "12,345.6 k", "1,234.56 mJ")
    console.print_table(("layer", "MACs", "accumulates", "energy"), [(name, *numbers)])
    console.print_facts({"program": "/usr/lib/python3/site-packages/imageio/binaries/ffmpeg-linux-9.0.2 of today"})
    printed = screen.getvalue()
    assert max(map(len, printed.splitlines())) <= 60
    assert all(number in printed for number in (*numbers, "9.0.2", "imageio/", "packages/"))
    first = [line.partition("  ")[0] for line in printed.splitlines()[1:4]]
    assert "".join(first) == name
    assert all(part.endswith(".") for part in first[:-1])


def test_columns_without_a_name_are_printed_as_facts_as_well(terminal):
    screen = terminal(30, NO_COLOR="1", TERM="dumb")
    console.print_table(("", "", "what"), [("first", "second", "abcdefghijklmnopqrstuvwxyz")])
    assert all(word in screen.getvalue() for word in ("first", "second"))


@pytest.mark.parametrize("arguments", [("zoo", "list"), ("recipes",)], ids=lambda each: each[0])
def test_commands_break_no_word_that_fits_in_sixty_columns(terminal, arguments):
    def lines_on(columns: int) -> list[str]:
        screen = terminal(columns, NO_COLOR="1", TERM="dumb")
        with contextlib.suppress(SystemExit):
            main(arguments)
        return screen.getvalue().splitlines()

    wide, narrow = lines_on(1000), lines_on(NARROW)
    assert max(map(len, narrow)) <= NARROW
    known = {piece for line in wide for word in line.split() for piece in re.split(r"(?<=[./,-])", word)}
    broken = {word for line in narrow for word in line.split() if not set(re.split(r"(?<=[./,-])", word)) <= known}
    assert not {word for word in broken if not re.search(r"\d", word)}


def test_only_a_line_that_may_fold_is_folded(terminal):
    screen = terminal(40, NO_COLOR="1", TERM="dumb")
    words = "at any firing rates, a clip takes from 343.12 µJ to 422.35 µJ"
    console.print_line(words, folds=True)
    assert max(map(len, screen.getvalue().splitlines())) <= 40
    assert screen.getvalue().split() == words.split()
    console.print_line(words)
    assert words in screen.getvalue().splitlines()


def test_json_is_ascii_whatever_the_names(capsys):
    console.print_json({"video": "猫\udcff\n"})
    line = capsys.readouterr().out
    assert line.isascii()
    assert json.loads(line) == {"video": "猫\udcff\n"}


def test_an_error_is_one_line_however_long(capsys):
    console.print_error("x " * 200 + "\n[b]y", "z " * 200)
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith("\\n[b]y")
    assert hint.startswith("hint: z")


def test_no_color_is_respected(terminal):
    screen = terminal(80, NO_COLOR="1")
    console.print_error("wrong", "set it right")
    assert "\x1b[3" not in screen.getvalue()
    colored = terminal(80)
    console.print_error("wrong", "set it right")
    assert "\x1b[1;31merror" in colored.getvalue()


def test_control_characters_are_escaped():
    assert escape("café [b] 猫") == "café [b] 猫"
    assert escape("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert escape("bad\udcff") == "bad\\udcff"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("two words", 9, ["two words"]),
        ("two words", 8, ["two", "words"]),
        ("  set in", 6, ["  set", "in"]),
        ("snn.stages.0.blocks.1", 14, ["snn.stages.0.", "blocks.1"]),
        ("/usr/share/lib", 10, ["/usr/", "share/lib"]),
        # neither within a number nor after the dashes of an option
        ("at 2.14.0", 6, ["at", "2.14.0"]),
        ("with --layers", 8, ["with", "--layers"]),
        # a word that does not fit is broken anywhere
        ("abcdefgh ij", 3, ["abc", "def", "gh", "ij"]),
        # letters of two columns
        ("猫猫猫", 4, ["猫猫", "猫"]),
        ("", 5, [""]),
    ],
)
def test_text_is_folded_between_words_and_parts_of_names(text, width, lines):
    assert fold(text, width).split("\n") == lines


def test_the_widest_column_is_reduced_first():
    assert share_width([10, 30, 5], [4, 12, 5], 40) == [10, 25, 5]
    assert share_width([10, 30, 5], [4, 12, 5], 21) == [4, 12, 5]
    assert share_width([10, 30, 5], [4, 12, 5], 20) is None


# progress


def test_progress_in_a_pipe_is_plain_lines_on_stderr(capsys):
    work(console.make_progress())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prepare: 0 of 3 videos\nwarning: one is [red]broken[/red]\nprepare: 3 of 3 videos · ")
    assert "\x1b" not in err


def test_quiet_progress_prints_only_warnings(capsys):
    work(console.make_progress(quiet=True))
    assert capsys.readouterr() == ("", "warning: one is [red]broken[/red]\n")


def test_progress_beside_json_prints_nothing():
    assert console.make_progress(json=True) is SILENCE


def test_a_terminal_gets_a_bar_with_count_rate_time_and_facts(terminal):
    screen = terminal(80)
    work(console.make_progress())
    last = screen.getvalue().rpartition("prepare")[2]
    assert "3/3" in last
    assert "videos/s" in last
    assert "took" in last
    assert "skipped 1" in last
    assert "warning: one is [red]broken[/red]" in screen.getvalue()


def test_a_bar_within_a_bar_is_removed_when_done(terminal):
    screen = terminal(80)
    work(console.make_progress())
    assert "within" not in screen.getvalue().rpartition("prepare")[2]
    assert "within" in screen.getvalue()


def test_a_terminal_shows_what_each_worker_does(terminal):
    screen = terminal(80)
    with console.make_progress().task("prepare", total=2, unit="videos") as task:
        for worker in range(10):
            task.at(worker, f"video {worker} of [b]")
        task.advance()
        # bars are redrawn ten times a second
        time.sleep(0.3)
        task.advance()
    printed = screen.getvalue()
    assert "worker 1: video 0 of [b]" in printed
    assert "worker 8: video 7" in printed
    assert "worker 9" not in printed
    assert "and 2 more" in printed
    assert "worker" not in printed.rpartition("2/2")[2]


@pytest.mark.parametrize("columns", [40, 60])
def test_a_bar_fits_a_narrow_terminal(terminal, columns):
    screen = terminal(columns, NO_COLOR="1", TERM="dumb", TTY_COMPATIBLE="1", TTY_INTERACTIVE="0")
    work(console.make_progress())
    bars = [line for line in screen.getvalue().splitlines() if line.startswith("prepare")]
    assert bars
    assert all("3/3" in line and len(line) <= columns for line in bars)


def test_a_task_prints_at_its_start_every_few_seconds_and_at_its_end(clock):
    lines = []
    with LineProgress(lines.append).task("prepare", total=10, unit="videos") as task:
        for _ in range(10):
            clock.now += 2
            task.advance(1, skipped=1)
    rate = format_rate(0.5, "videos")
    assert lines == [
        "prepare: 0 of 10 videos",
        f"prepare: 3 of 10 videos · {rate} · 14 s left · skipped 1",
        f"prepare: 6 of 10 videos · {rate} · 8.0 s left · skipped 1",
        f"prepare: 9 of 10 videos · {rate} · 2.0 s left · skipped 1",
        f"prepare: 10 of 10 videos · {rate} · took 20 s · skipped 1",
    ]


def test_bytes_are_printed_as_sizes(clock):
    lines: list[str] = []
    with LineProgress(lines.append).task("download x.rar", total=2_000_000_000, unit="bytes") as task:
        clock.now += 10
        task.advance(500_000_000)
        clock.now += 30
        task.advance(1_500_000_000)
    assert lines == [
        "download x.rar: 0 B of 2.0 GB",
        "download x.rar: 500.0 MB of 2.0 GB · 50.0 MB/s · 30 s left",
        "download x.rar: 2.0 GB of 2.0 GB · 50.0 MB/s · took 40 s",
    ]


def test_a_task_of_unknown_length_prints_no_time_left(clock):
    lines = []
    with LineProgress(lines.append).task("read", total=None, unit="videos") as task:
        clock.now += 6
        task.advance(12)
    rate = format_rate(2, "videos")
    assert lines == ["read: 0 videos", f"read: 12 videos · {rate}", f"read: 12 videos · {rate} · took 6.0 s"]


def test_a_task_within_a_task_prints_only_if_it_lasts(clock):
    lines = []
    progress = LineProgress(lines.append)
    with progress.task("train", total=2, unit="batches"):
        with progress.task("score", total=1, unit="batches") as score:
            clock.now += 1
            score.advance()
        assert lines == ["train: 0 of 2 batches"]
        with progress.task("score", total=9, unit="batches") as score:
            clock.now += 6
            score.advance()
    assert [line.partition(":")[0] for line in lines] == ["train", "score", "score", "train"]


def test_a_task_that_fails_prints_no_end(clock):
    lines = []
    progress = LineProgress(lines.append)
    with pytest.raises(KeyError), progress.task("train", total=2, unit="batches"):
        raise KeyError
    assert lines == ["train: 0 of 2 batches"]
    with progress.task("again", total=0, unit="batches"):
        pass
    assert lines[1] == "again: 0 of 0 batches"


def test_quiet_progress_takes_tasks_and_facts_silently():
    lines = []
    progress = QuietProgress(lines.append)
    with progress.task("train", total=2, unit="batches") as task:
        task.advance(2, loss=0.1)
    progress.say("a fact")
    progress.warn("a problem")
    assert lines == ["warning: a problem"]


def test_facts_of_a_task_are_short():
    assert format_facts({"loss": 0.123456, "skipped": 2}) == "loss 0.1235 · skipped 2"
