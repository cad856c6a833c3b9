"""Runs: every training under a folder is told, whatever became of it, and what two of them differ in."""

import dataclasses
import json
import os
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from respike.common.errors import RespikeError
from respike.common.files import canonical_json, folder_lock
from respike.zoo.checkpoint import save_checkpoint
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.history import HISTORY_NAME, EpochRecord
from respike.zoo.models import ReSpike, model_config
from respike.zoo.run_folder import (
    CONFIG_NAME,
    LAST_NAME,
    LOCK_NAME,
    STATE_NAME,
    RunFolder,
    RunSummary,
    differing_settings,
    find_runs,
    summarise_run,
)
from respike.zoo.snapshot import Snapshot
from respike.zoo.train_config import TrainConfig

from tests.zoo.batches import make_data_spec

CONFIG = TrainConfig(epochs=3)
MODEL = model_config("respike_tiny", num_classes=3, branches="hybrid")


def _begin(folder: Path, *, config: TrainConfig = CONFIG, data=None, num_epochs: int = 0, is_saved: bool = False):
    """A run as `fit` leaves it after so many epochs; `is_saved` says whether there is a snapshot to resume from."""
    run = RunFolder(folder, resume=False)
    run.describe(config, MODEL, data or make_data_spec(), {})
    if num_epochs:
        lines = [canonical_json(_record(epoch).to_json()) + "\n" for epoch in range(1, num_epochs + 1)]
        (folder / HISTORY_NAME).write_text("".join(lines))
    if is_saved:
        run.write_snapshot(Snapshot({"a": torch.zeros(1)}, {}))
    run.close(is_done=False)


def _record(epoch: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        train_loss=1.0 / epoch,
        train_accuracy=0.5,
        learning_rate=0.1,
        seconds=2.0,
        clips_per_second=8.0,
        # the second is the best: as many right as in the third, and surer
        validation={"top1": min(0.4, 0.2 * epoch), "loss": 1.0 if epoch == 2 else 1.5},
    )


def _fate(run: RunSummary) -> tuple[str, int, int]:
    return run.status, run.num_epochs, run.wanted_epochs


def test_runs_that_finished_no_epoch_are_told_as_such(tmp_path: Path) -> None:
    _begin(tmp_path / "a/saved", is_saved=True)
    _begin(tmp_path / "b/unsaved")
    assert find_runs(tmp_path) == [tmp_path / "a/saved", tmp_path / "b/unsaved"]
    saved, unsaved = map(summarise_run, find_runs(tmp_path))
    assert (_fate(saved), _fate(unsaved)) == (("stopped", 0, 3), ("ended", 0, 3))
    assert (saved.best, saved.last, saved.seconds) == (None, None, 0)
    assert json.loads(json.dumps(saved.to_json()))["best"] is None
    assert (saved.dataset, saved.fingerprint) == ("bits", "f" * 64)


def test_a_run_is_done_stopped_or_ended_by_what_it_left(tmp_path: Path) -> None:
    for name, num_epochs, is_saved in (("done", 3, False), ("stopped", 2, True), ("ended", 2, False)):
        _begin(tmp_path / name, num_epochs=num_epochs, is_saved=is_saved)
        assert _fate(summarise_run(tmp_path / name)) == (name, num_epochs, 3)


def test_the_best_epoch_is_the_one_with_the_highest_metric_and_then_the_lowest_loss(tmp_path: Path) -> None:
    _begin(tmp_path, num_epochs=3)
    run = summarise_run(tmp_path)
    assert (run.best.epoch, run.last.epoch, run.seconds) == (2, 3, 6.0)


@pytest.mark.parametrize("is_held", [True, False])
def test_a_run_is_running_while_its_process_holds_the_lock(tmp_path: Path, is_held: bool) -> None:
    _begin(tmp_path, is_saved=True)
    lock = tmp_path / STATE_NAME / LOCK_NAME
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "for": "respike train"}
    with folder_lock(lock, "respike train") if is_held else nullcontext():
        # a killed one leaves its name, and its number may be another process's by now
        lock.with_suffix(".owner.json").write_text(json.dumps(owner))
        run = summarise_run(tmp_path)
    assert (run.status, run.host) == (("running", socket.gethostname()) if is_held else ("stopped", None))


def test_a_run_of_an_earlier_respike_is_read_from_its_last_checkpoint(tmp_path: Path) -> None:
    _begin(tmp_path, num_epochs=3)
    (tmp_path / CONFIG_NAME).write_text(json.dumps(CONFIG.to_json()))
    with pytest.raises(RespikeError, match="does not describe a training"):
        summarise_run(tmp_path)
    torch.manual_seed(0)
    spec = CheckpointSpec(
        model=MODEL.to_json(), image_size=32, data=make_data_spec(), training=CONFIG.to_json(), epoch=3, scores={}
    )
    save_checkpoint(tmp_path / LAST_NAME, ReSpike(MODEL), spec)
    run = summarise_run(tmp_path)
    assert (*_fate(run), run.dataset) == ("done", 3, 3, make_data_spec().dataset)


def test_whether_a_run_on_another_machine_still_lives_cannot_be_seen_and_it_counts_as_running(tmp_path: Path) -> None:
    _begin(tmp_path, is_saved=True)
    owner = (tmp_path / STATE_NAME / LOCK_NAME).with_suffix(".owner.json")
    owner.write_text(json.dumps({"pid": 2**22 + 1, "host": "node7", "for": "respike train"}))
    run = summarise_run(tmp_path)
    assert (run.status, run.host) == ("running", "node7")


def test_what_runs_differ_in_is_named_whether_setting_network_or_data(tmp_path: Path) -> None:
    _begin(tmp_path / "a", num_epochs=3)
    other = make_data_spec(fingerprint="e" * 64, settings={**make_data_spec().settings, "threshold": 16})
    _begin(tmp_path / "b", config=dataclasses.replace(CONFIG, learning_rate=0.5), data=other)
    runs = [summarise_run(tmp_path / name) for name in "ab"]
    assert differing_settings(runs) == {
        "learning_rate": [CONFIG.learning_rate, 0.5],
        "data.threshold": [8, 16],
        "data.fingerprint": ["f" * 64, "e" * 64],
    }
    assert differing_settings(runs[:1] * 2) == {}
    assert runs[0].settings["model.snn.lif.reset"] == "hard"


def test_published_weights_and_other_folders_are_no_runs(tmp_path: Path) -> None:
    for name, text in (("weights", '{"model": {}}'), ("other", "[1]"), ("broken", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    assert find_runs(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"training": {"epochs": "x"}, "model": {}, "data": {}}'], ids=str
)
def test_a_run_with_a_damaged_description_is_an_error(tmp_path: Path, text: str) -> None:
    _begin(tmp_path, num_epochs=1)
    (tmp_path / "config.json").write_text(text)
    assert find_runs(tmp_path) == [tmp_path]
    with pytest.raises(RespikeError, match=r"config\.json"):
        summarise_run(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match=r"holds no config\.json"):
        summarise_run(tmp_path)
