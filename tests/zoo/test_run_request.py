"""Run request: how a run was started, and which run `--resume` continues."""

import os
import socket
from pathlib import Path

import pytest
from respike.common.errors import MismatchError, RespikeError
from respike.common.files import RUNS_ROOT
from respike.zoo.recipe import Recipe
from respike.zoo.run_folder import BEST_NAME, RunFolder
from respike.zoo.run_request import RunRequest, find_resumable_run, read_run_request

REQUEST = RunRequest(recipe=Recipe().override({"epochs": 3}), recipe_name="mine", data="shards/x", init=None)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _stop_run(name: str) -> Path:
    """A run that was stopped after a save."""
    folder = RunFolder(RUNS_ROOT / name, resume=False)
    folder.write_snapshot(b"snapshot")
    folder.close(is_done=False)
    return RUNS_ROOT / name


def _complete_run(name: str) -> None:
    (RUNS_ROOT / name).mkdir(parents=True)
    (RUNS_ROOT / name / BEST_NAME).write_bytes(b"weights")


def test_a_request_reads_back_the_same(tmp_path: Path) -> None:
    assert read_run_request(tmp_path, None) is None
    for name, text in REQUEST.to_files().items():
        (tmp_path / name).write_text(text)
    assert read_run_request(tmp_path, None) == read_run_request(tmp_path, "mine") == REQUEST
    with pytest.raises(MismatchError, match="was started with the recipe mine, not with other"):
        read_run_request(tmp_path, "other")
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(RespikeError, match=r"cannot read .*request\.json"):
        read_run_request(tmp_path, None)


def test_the_only_stopped_run_is_resumed() -> None:
    _complete_run("a")
    stopped = _stop_run("b")
    assert find_resumable_run() == stopped


def test_a_running_training_is_not_one_to_resume() -> None:
    stopped = _stop_run("stopped")
    with RunFolder(RUNS_ROOT / "running", resume=False):
        assert find_resumable_run() == stopped
        stopped.rename("elsewhere")
        with pytest.raises(RespikeError, match="no run under runs/ can be resumed; still running: runs/running"):
            find_resumable_run()


def test_a_run_whose_process_was_killed_is_one_to_resume() -> None:
    stopped = _stop_run("killed")
    owner = f'{{"pid": {os.getpid()}, "host": "{socket.gethostname()}", "for": "respike train"}}'
    (stopped / "state/training.owner.json").write_text(owner)
    assert find_resumable_run() == stopped


def test_of_two_stopped_runs_the_command_for_one_is_named() -> None:
    first, second = _stop_run("a"), _stop_run("b")
    with pytest.raises(RespikeError, match=f"2 runs can be resumed: {first}, {second}") as caught:
        find_resumable_run()
    assert f"`respike train --resume --out {first}`" in caught.value.hint


def test_without_a_stopped_run_the_complete_ones_are_named() -> None:
    with pytest.raises(RespikeError, match=r"no run under runs/ can be resumed .name the folder"):
        find_resumable_run()
    for name in "ab":
        _complete_run(name)
    with pytest.raises(RespikeError, match="complete: runs/a, runs/b"):
        find_resumable_run()
