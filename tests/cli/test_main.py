"""The program: help, wrong usage, errors as one line, exit codes and signals."""

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
from respike.common.errors import RespikeError, SettingError

RESPIKE = (sys.executable, "-m", "respike")


@pytest.fixture
def failing(monkeypatch):
    """Make `respike doctor` raise what is given."""

    def replace(error: BaseException) -> None:
        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        @click.option("--lr", "learning_rate")
        def command(as_json: bool, learning_rate: str | None) -> None:
            raise error

        monkeypatch.setattr("respike.cli.doctor.command", command)

    return replace


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_in_help_and_its_own_help_has_an_example(call, name):
    listed = [line.split(maxsplit=1) for line in call("--help").out.splitlines()]
    assert [name, COMMANDS[name]] in listed
    own = call(name, "--help")
    assert own.code == 0
    assert own.out.startswith(f"Usage: respike {name} ")
    assert f"\n    respike {name}" in own.out.partition("Examples:")[2]


def test_no_command_loads_torch_for_its_help():
    code = f"import importlib, sys\nfor name in {list(COMMANDS)}:\n    importlib.import_module(f'respike.cli.{{name}}')"
    answer = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not {"torch", "timm", "matplotlib"} & set(answer.stdout.split())


def test_version_is_that_of_the_package(call):
    assert call("--version").out.strip() == f"respike, version {respike.__version__}"


def test_a_mistyped_command_names_the_nearest(call):
    answer = call("inspct", "x")
    assert answer.code == 2
    assert "Did you mean 'inspect'?" in answer.err


def test_an_unknown_command_lists_all_commands(call):
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
def test_bounds_are_printed_in_words(call, arguments, said):
    answer = call(*arguments)
    assert answer.code == 2
    assert answer.err.endswith(f": {said}\n")
    assert json.loads(call(*arguments, "--json").err)["error"].endswith(f": {said}")


def test_an_expected_problem_is_a_line_and_a_hint_on_stderr(call, failing):
    failing(RespikeError("the thing is wrong", "set it right"))
    answer = call("doctor")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: the thing is wrong\nhint: set it right\n"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (
            SettingError("the rate is 0", "give a number above 0", setting="learning_rate"),
            "give a number above 0 (--lr)",
        ),
        (SettingError("the rate is 0", setting="learning_rate"), "change --lr"),
        (SettingError("the rate is 0", "change --lr", setting="learning_rate"), "change --lr"),
        (SettingError("the size is 0", "give more", setting="size"), "give more"),
    ],
)
def test_an_error_about_a_setting_names_its_option(call, failing, error, hint):
    failing(error)
    assert call("doctor").err.splitlines()[1:] == [f"hint: {hint}"]


def test_a_stopped_command_says_what_is_kept(call, monkeypatch, tmp_path):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("respike.workflows.demo.run_demo", stop)
    answer = call("demo", "--out", tmp_path)
    kept = "finished videos and shards are kept, run the same command to go on; it trains from the beginning"
    assert (answer.code, answer.err.strip()) == (130, f"error: interrupted: {kept}")


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


def test_an_error_of_the_system_is_one_line_that_names_the_file(call, failing):
    failing(PermissionError(13, "Permission denied", "/secret"))
    answer = call("doctor")
    assert (answer.code, answer.err) == (1, "error: /secret: Permission denied\n")


def test_a_bug_gives_a_traceback(call, failing):
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        call("doctor")


def test_an_interrupt_is_one_line(call, failing):
    failing(KeyboardInterrupt())
    answer = call("doctor")
    assert answer.code == 130
    assert answer.err.split("\n") == ["", "error: interrupted", ""]


def test_sigterm_unwinds_the_stack_and_restores_the_handler(call, monkeypatch):
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
def test_a_reader_that_has_gone_gets_no_message(num_characters):
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


def test_help_works_on_a_terminal_without_all_letters():
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    answer = subprocess.run([*RESPIKE, "prepare", "--help"], capture_output=True, env=environment, check=True)
    assert b"--threshold \\u03b8" in answer.stdout
