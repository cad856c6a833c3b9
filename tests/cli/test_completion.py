"""Completion: each shell gets a script that it can read, and Tab offers commands, options and names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from respike.cli import completion
from respike.cli.completion import SHELLS
from respike.cli.main import COMMANDS, cli
from respike.zoo.energy import list_baselines
from respike.zoo.models import MODELS
from respike.zoo.recipe import list_recipes
from respike.zoo.weights import read_cards

from tests.processes import ROOT

# tests change the folder, so that a relative PYTHONPATH would name nothing
_ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def offered(line: str) -> list[str]:
    """What Tab offers at the end of `line`."""
    _, *words, incomplete = line.split(" ")
    completer = BashComplete(cli, {}, "respike", "_RESPIKE_COMPLETE")
    return [f"{item.type},{item.value}" for item in completer.get_completions(words, incomplete)]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_that_calls_respike(call, shell):
    answer = call("completion", shell)
    assert answer.code == 0
    assert f"_RESPIKE_COMPLETE={shell}_complete" in answer.out


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_accepts_its_script(call, shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    script = tmp_path / "script"
    script.write_text(call("completion", shell).out)
    answer = subprocess.run([program, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_tab_in_bash_completes_a_command(call, tmp_path: Path):
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


def test_every_command_is_offered_without_importing_any():
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


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("respike train --model respike_r", ["plain,respike_r18", "plain,respike_r50"]),
        ("respike train --recipe h", ["file,h", "plain,hmdb51"]),
        ("respike train --recipe=h", ["file,h", "plain,hmdb51"]),
        ("respike train --init ", ["file,", "plain,runs/mine", "plain,respike_tiny.demo16"]),
        ("respike train --data ", ["dir,", "plain,shards/small"]),
        ("respike recipes demo16h", ["file,demo16h", "plain,demo16hard"]),
        ("respike score runs/mine r", ["file,r", "plain,runs/mine", "plain,respike_tiny.demo16"]),
        ("respike predict respike_tiny.", ["file,respike_tiny.", "plain,respike_tiny.demo16"]),
        # a card without weights can be shown, but cannot predict
        ("respike zoo show respike_r50.u", ["plain,respike_r50.ucf101"]),
        ("respike predict respike_r50.u", ["file,respike_r50.u"]),
        ("respike energy respike_tiny", ["file,respike_tiny", "plain,respike_tiny.demo16", "plain,respike_tiny"]),
        ("respike energy respike_r18 --compare r3", ["plain,r3d_18"]),
        ("respike energy respike_r18 --compare r3d_18,mc", ["plain,r3d_18,mc3_18"]),
        ("respike inspect s", ["dir,s", "plain,shards/small"]),
        ("respike ablate hm", ["dir,hm", "plain,hmdb51"]),
    ],
)
def test_names_are_offered_for_arguments_and_options(tmp_path: Path, monkeypatch, line, wanted):
    for path in ("runs/mine/best.safetensors", "runs/begun/config.json", "shards/small/dataset.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)
    assert offered(line) == wanted


def test_the_offered_names_exist():
    def values(offer):
        return [item.value for item in offer(None, None, "") if item.type == "plain"]

    assert values(completion.models) == list(MODELS)
    assert values(completion.video_networks) == [*list_baselines(), "none"]
    assert values(completion.recipes) == list_recipes()
    assert values(completion.cards) == sorted(read_cards())
    with_weights = sorted(name for name, card in read_cards().items() if card.has_weights)
    assert [name for name in values(completion.checkpoints) if not name.startswith("runs/")] == with_weights


@pytest.mark.parametrize("line", ["respike zoo show ", "respike energy "])
def test_nothing_heavy_is_loaded_at_tab(line):
    told = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_RESPIKE_COMPLETE": "bash_complete"}
    code = "import sys\nfrom respike.cli.main import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=_ENVIRONMENT | told, capture_output=True, text=True, check=True)
    assert not answer.stderr
    assert not {"torch", "timm", "numpy"} & set(answer.stdout.splitlines()[-1].split())


def test_a_mistyped_command_before_tab_is_not_an_error():
    assert "plain,prepare" in offered("respike prepaer ")


def test_another_shell_is_refused_with_the_choices(call):
    answer = call("completion", "tcsh")
    assert answer.code == 2
    assert all(shell in answer.err for shell in SHELLS)
