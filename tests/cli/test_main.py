import json
import os
import signal
import subprocess
import sys
import time

import click
import pytest
import respike
from respike.cli import main as program
from respike.cli.main import COMMANDS
from respike.common.errors import RespikeError

RESPIKE = (sys.executable, "-m", "respike")


@pytest.fixture
def failing(monkeypatch):
    """Make `respike doctor` raise what is given."""

    def replace(error: BaseException) -> None:
        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        def command(as_json: bool) -> None:
            raise error

        monkeypatch.setattr("respike.cli.doctor.command", command)

    return replace


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_stands_in_help_and_shows_an_example_in_its_own(call, name):
    listed = [line.split(maxsplit=1) for line in call("--help").out.splitlines()]
    assert [name, COMMANDS[name]] in listed
    own = call(name, "--help")
    assert own.code == 0
    assert own.out.startswith(f"Usage: respike {name} ")
    assert f"\n    respike {name}" in own.out.partition("Examples:")[2]


def test_help_answers_in_well_under_half_a_second():
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([*RESPIKE, "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
        if min(seconds) < 0.5:
            return
    pytest.fail(f"the fastest of five took {min(seconds):.2f} s")


def test_version_is_that_of_the_package(call):
    assert call("--version").out.strip() == f"respike, version {respike.__version__}"


def test_a_mistyped_command_names_the_nearest(call):
    answer = call("inspct", "x")
    assert answer.code == 2
    assert "Did you mean 'inspect'?" in answer.err


def test_a_command_like_no_other_lists_them_all(call):
    answer = call("qqqq")
    assert answer.code == 2
    assert all(name in answer.err for name in COMMANDS)


def test_an_unknown_option_names_the_nearest(call):
    answer = call("prepare", "ucf101", "--strid", 4)
    assert answer.code == 2
    assert "--stride" in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--epochs", 0), "0 is out of range: give a number from 1."),
        (("score", "x", "--eval-crop", 2), "2.0 is out of range: give a number above 0 up to 1."),
    ],
)
def test_a_number_out_of_range_is_told_in_words_and_not_as_a_formula(call, arguments, said):
    answer = call(*arguments)
    assert answer.code == 2
    assert answer.err.endswith(f": {said}\n")
    assert json.loads(call(*arguments, "--json").err)["error"].endswith(f": {said}")


def test_a_foreseen_problem_is_a_line_and_a_hint_on_stderr(call, failing):
    failing(RespikeError("the thing is wrong", "set it right"))
    answer = call("doctor")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: the thing is wrong\nhint: set it right\n"


def test_with_json_a_problem_is_one_object_on_stderr(call, failing):
    failing(RespikeError("the thing is wrong", "set it right"))
    answer = call("doctor", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert json.loads(answer.err) == {"error": "the thing is wrong", "hint": "set it right"}


def test_with_json_wrong_usage_is_an_object_too(call):
    answer = call("prepare", "nothing", "--json")
    assert (answer.code, answer.out) == (2, "")
    told = json.loads(answer.err)
    assert "'ucf101'" in told["error"]
    assert told["hint"] == "see `respike prepare --help`"


def test_a_refusal_of_the_system_is_one_line_that_names_the_file(call, failing):
    failing(PermissionError(13, "Permission denied", "/secret"))
    answer = call("doctor")
    assert (answer.code, answer.err) == (1, "error: /secret: Permission denied\n")


def test_a_bug_of_ours_is_not_dressed_up_as_a_foreseen_problem(call, failing):
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        call("doctor")


def test_an_interrupt_is_one_line(call, failing):
    failing(KeyboardInterrupt())
    answer = call("doctor")
    assert answer.code == 130
    assert answer.err.split("\n") == ["", "error: interrupted", ""]


def test_sigterm_unwinds_the_stack_and_gives_the_handler_back(call, monkeypatch):
    unwound = []

    @click.command()
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            unwound.append(True)

    monkeypatch.setattr("respike.cli.doctor.command", command)
    before = signal.getsignal(signal.SIGTERM)
    answer = call("doctor")
    assert (answer.code, answer.err, unwound) == (143, "error: terminated\n", [True])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("num_characters", [10, 1_000_000])
def test_a_reader_that_has_gone_is_no_reason_to_complain(num_characters):
    # short output breaks at the final flush, long output within the command
    code = f"""
import click, sys
from respike.cli import doctor, main
doctor.command = click.Command("doctor", callback=lambda: click.echo("x" * {num_characters}))
main.main(["doctor"])
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
    assert (process.returncode, complaint) == (program.READER_GONE, b"")


def test_a_terminal_that_lacks_a_letter_still_gets_help():
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    answer = subprocess.run([*RESPIKE, "prepare", "--help"], capture_output=True, env=environment, check=True)
    assert b"--threshold \\u03b8" in answer.stdout
