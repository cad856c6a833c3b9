"""Completion: each shell gets a script that it can read, and Tab finds commands, options and choices."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from respike.cli.completion import SHELLS
from respike.cli.main import COMMANDS


def offered(line: str) -> list[str]:
    """What Tab offers at the end of `line`."""
    words = line.split(" ")
    told = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_RESPIKE_COMPLETE": "bash_complete"}
    answer = subprocess.run(
        [sys.executable, "-m", "respike"], env=os.environ | told, capture_output=True, text=True, check=True
    )
    assert not answer.stderr
    return answer.stdout.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_that_calls_respike(call, shell):
    answer = call("completion", shell)
    assert answer.code == 0
    assert f"_RESPIKE_COMPLETE={shell}_complete" in answer.out


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_script_without_complaint(call, shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    script = tmp_path / "script"
    script.write_text(call("completion", shell).out)
    answer = subprocess.run([program, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_tab_in_bash_finishes_a_command(call, tmp_path: Path):
    program = tmp_path / "bin" / "respike"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m respike "$@"\n')
    program.chmod(0o755)
    asked = 'COMP_WORDS=(respike insp); COMP_CWORD=1; _respike_completion respike insp respike; echo "${COMPREPLY[@]}"'
    environment = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    answer = subprocess.run(
        ["bash", "--norc", "-c", f"{call('completion', 'bash').out}\n{asked}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "inspect"


def test_every_command_is_offered_and_none_is_imported_for_it():
    told = {"COMP_WORDS": "respike ", "COMP_CWORD": "1", "_RESPIKE_COMPLETE": "bash_complete"}
    code = (
        "import sys\nfrom respike.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    print([name for name in sys.modules if name in {'respike.cli.train', 'respike.cli.prepare', 'torch'}])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | told, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == [*(f"plain,{name}" for name in COMMANDS), "[]"]


def test_options_and_choices_of_a_command_are_offered():
    assert "plain,--stride" in offered("respike prepare --str")
    assert offered("respike completion z") == ["plain,zsh"]


def test_a_mistyped_command_before_tab_is_no_error():
    # `offered` holds that nothing is said on stderr
    assert "plain,prepare" in offered("respike prepaer ")


def test_another_shell_is_refused_with_the_three(call):
    answer = call("completion", "tcsh")
    assert answer.code == 2
    assert all(shell in answer.err for shell in SHELLS)
