import json
import time

import pytest
from respike.cli import console
from respike.common.progress import SILENCE


def work(progress) -> None:
    with progress.task("prepare", total=3, unit="videos") as task:
        task.advance(1, skipped=0)
        with progress.task("within", total=1, unit="clips") as inner:
            inner.advance()
        progress.warn("one is [red]broken[/red]")
        task.advance(2, skipped=1)


def test_without_a_terminal_progress_is_plain_lines_on_stderr(capsys):
    work(console.make_progress())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prepare: 0 of 3 videos\nwarning: one is [red]broken[/red]\nprepare: 3 of 3 videos · ")
    assert "\x1b" not in err


def test_quiet_leaves_warnings(capsys):
    work(console.make_progress(quiet=True))
    assert capsys.readouterr() == ("", "warning: one is [red]broken[/red]\n")


def test_json_leaves_nothing(capsys):
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


def test_a_bar_within_a_bar_goes_when_it_is_done(terminal):
    screen = terminal(80)
    work(console.make_progress())
    assert "within" not in screen.getvalue().rpartition("prepare")[2]
    assert "within" in screen.getvalue()


def test_a_terminal_shows_what_each_worker_is_at_while_it_is_at_it(terminal):
    screen = terminal(80)
    with console.make_progress().task("prepare", total=2, unit="videos") as task:
        for worker in range(10):
            task.at(worker, f"video {worker} of [b]")
        task.advance()
        # drawn at its own pace; what is shown at the end shows what was drawn before
        time.sleep(0.3)
        task.advance()
    shown = screen.getvalue()
    assert "worker 1: video 0 of [b]" in shown
    assert "worker 8: video 7" in shown
    assert "worker 9" not in shown
    assert "and 2 more" in shown
    assert "worker" not in shown.rpartition("2/2")[2]


@pytest.mark.parametrize("columns", [40, 60])
def test_a_bar_fits_a_narrow_terminal(terminal, columns):
    screen = terminal(columns, NO_COLOR="1", TERM="dumb", TTY_COMPATIBLE="1", TTY_INTERACTIVE="0")
    work(console.make_progress())
    shown = [line for line in screen.getvalue().splitlines() if line.startswith("prepare")]
    assert shown
    assert all("3/3" in line and len(line) <= columns for line in shown)


def test_no_color_is_heeded(terminal):
    screen = terminal(80, NO_COLOR="1")
    console.print_error("wrong", "set it right")
    assert "\x1b[3" not in screen.getvalue()
    colored = terminal(80)
    console.print_error("wrong", "set it right")
    assert "\x1b[1;31merror" in colored.getvalue()


def test_an_error_stays_one_line_however_long(capsys):
    console.print_error("x " * 200 + "\n[b]y", "z " * 200)
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith("\\n[b]y")
    assert hint.startswith("hint: z")


def test_facts_and_tables_are_text_as_it_is_and_unfolded_in_a_pipe(capsys):
    path = "/very/long" * 30 + "/[bold]x[/bold]/:smile:"
    console.print_facts({"out": path, "a longer name": 3}, title="of [it]")
    assert capsys.readouterr().out.splitlines() == ["of [it]", f"out            {path}", "a longer name  3"]


def test_numbers_stand_right_and_words_left(capsys):
    console.print_table(("name", "clips", "what"), [("a", "5", "left"), ("bcd", "1,200", "words")])
    assert capsys.readouterr().out.splitlines() == [
        "name  clips  what",
        "a         5  left",
        "bcd   1,200  words",
    ]


def test_a_wide_table_folds_on_a_narrow_terminal(terminal):
    screen = terminal(60, NO_COLOR="1", TERM="dumb")
    console.print_facts({"out": "x" * 100})
    assert max(map(len, screen.getvalue().splitlines())) <= 60
    assert screen.getvalue().count("x") == 100


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_numbers_are_whole_however_narrow_the_terminal(terminal, columns):
    screen = terminal(columns, NO_COLOR="1", TERM="dumb")
    headings = ("run", "data", *(f"number {n}" for n in range(6)))
    cells = [[f"runs/{'x' * 30}-{n}", "ucf101 split 1", *(f"12345.{n}{m}" for m in range(6))] for n in range(2)]
    console.print_table(headings, cells)
    said = screen.getvalue()
    assert all(f"12345.{n}{m}" in said for n in range(2) for m in range(6))
    assert max(map(len, said.splitlines())) <= columns
    assert said.count("number 5") == (1 if columns == 120 else 2)


def test_folding_breaks_no_word_and_no_number(terminal):
    screen = terminal(60, NO_COLOR="1", TERM="dumb")
    name, numbers = "snn.stages.0.blocks.0.shortcut.convolution", ("1,234.5 MMAC", "12,345.6 k", "1,234.56 mJ")
    console.print_table(("layer", "MACs", "accumulates", "energy"), [(name, *numbers)])
    console.print_facts({"program": "/usr/lib/python3/site-packages/imageio/binaries/ffmpeg-linux-9.0.2 of today"})
    said = screen.getvalue()
    assert max(map(len, said.splitlines())) <= 60
    assert all(number in said for number in (*numbers, "9.0.2", "imageio/", "packages/"))
    first = [line.partition("  ")[0] for line in said.splitlines()[1:4]]
    assert "".join(first) == name
    assert all(part.endswith(".") for part in first[:-1])


def test_columns_of_one_name_are_all_told_where_a_row_is_told_as_facts(terminal):
    screen = terminal(30, NO_COLOR="1", TERM="dumb")
    console.print_table(("", "", "what"), [("first", "second", "abcdefghijklmnopqrstuvwxyz")])
    assert all(word in screen.getvalue() for word in ("first", "second"))


def test_a_line_may_fold_between_words_and_does_not_where_it_may_be_copied(terminal):
    screen = terminal(40, NO_COLOR="1", TERM="dumb")
    words = "whatever the rates, a clip takes from 343.12 µJ to 422.35 µJ"
    console.print_line(words, folds=True)
    assert max(map(len, screen.getvalue().splitlines())) <= 40
    assert screen.getvalue().split() == words.split()
    console.print_line(words)
    assert words in screen.getvalue().splitlines()


def test_json_survives_names_that_are_no_text(capsys):
    console.print_json({"video": "猫\udcff\n"})
    line = capsys.readouterr().out
    assert line.isascii()
    assert json.loads(line) == {"video": "猫\udcff\n"}
