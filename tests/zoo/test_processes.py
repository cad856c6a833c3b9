"""Training on two processes: the same update as one process, one folder, the same end for both."""

import re
import time
from pathlib import Path

import pytest
import torch
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.history import read_history
from safetensors.torch import load_file

from tests.processes import start_together
from tests.zoo import resuming
from tests.zoo.stepped import take_one_step


def _join(processes) -> list[int]:
    for process in processes:
        process.join(timeout=200)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("changes", [{}, {"max_grad_norm": 0.5, "backbone_lr_scale": 0.1}])
def test_two_processes_make_the_update_of_one_with_both_batches(tmp_path: Path, changes) -> None:
    together = [str(tmp_path / "two"), str(tmp_path / "one")]
    processes = start_together(_step, together[0], changes)
    assert _join(processes) == [0, 0]
    take_one_step(together[1], **changes)
    two, one = (load_file(path) for path in together)
    torch.manual_seed(0)
    assert two.keys() == one.keys()
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=0, atol=1e-12), name


def _step(path: str, changes: dict[str, object]) -> None:
    take_one_step(path, **changes)


def test_two_killed_processes_continue_to_the_same_bits(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert _join(start_together(resuming.run_in_child, str(whole))) == [0, 0]
    processes = start_together(resuming.run_in_child, str(cut))
    while not list(cut.glob("state/*.safetensors")) and processes[0].is_alive():
        time.sleep(0.005)
    for process in processes:
        process.kill()
    _join(processes)
    assert list(cut.glob("state/*.safetensors"))
    assert _join(start_together(resuming.run_in_child, str(cut))) == [0, 0]
    assert resuming.weights_of(cut) == resuming.weights_of(whole)
    assert len(read_history(cut)) == resuming.CONFIG.epochs
    assert len(load_checkpoint(cut)[1].train_videos) == 9


def test_a_frozen_backbone_learns_later_on_both_processes(tmp_path: Path) -> None:
    assert _join(start_together(resuming.freeze_first, str(tmp_path))) == [0, 0]
    first, second = (load_file(tmp_path / f"weights-{rank}") for rank in range(2))
    start = resuming.make_model().state_dict()
    assert not torch.equal(first["ann.conv1.0.weight"], start["ann.conv1.0.weight"])
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_network_is_compiled_again_after_freezing_and_thawing(tmp_path: Path) -> None:
    assert _join(start_together(resuming.compile_and_freeze, str(tmp_path))) == [0, 0]
    for rank in range(2):
        assert (tmp_path / f"compiled-{rank}").read_text().split() == ["DistributedDataParallel"] * 3


def test_if_a_process_is_killed_the_other_ends_within_a_minute(tmp_path: Path) -> None:
    processes = start_together(resuming.run_forever, str(tmp_path))
    while not list(tmp_path.glob("state/*.safetensors")) and processes[0].is_alive():
        time.sleep(0.01)
    processes[1].kill()
    started = time.monotonic()
    processes[0].join(timeout=60)
    assert time.monotonic() - started < 60
    assert processes[0].exitcode not in (0, None)
    assert "another process" in (tmp_path / "error-0.txt").read_text()


def test_a_loss_of_nan_ends_both_processes_with_one_error(tmp_path: Path) -> None:
    assert _join(start_together(resuming.diverge_in_one, str(tmp_path))) == [1, 1]
    errors = [(tmp_path / f"error-{rank}.txt").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert "nan" in errors[0]


def test_a_full_disk_ends_both_processes_with_one_error(tmp_path: Path) -> None:
    assert _join(start_together(resuming.fill_the_disk, str(tmp_path))) == [1, 1]
    errors = [(tmp_path / f"error-{rank}.txt").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert re.search(r"cannot write .*\.safetensors: File too large", errors[0])
