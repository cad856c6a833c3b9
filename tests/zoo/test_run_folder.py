"""Run folder: locked while it is written, summarised whatever became of the training."""

import dataclasses
import json
import os
import shutil
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest
from respike.common.errors import CheckpointError, RespikeError
from respike.common.files import folder_lock
from respike.zoo import run_folder
from respike.zoo.checkpoint import save_checkpoint
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.history import EpochRecord, write_history
from respike.zoo.models import ReSpike, model_config
from respike.zoo.run_folder import (
    CONFIG_NAME,
    LAST_NAME,
    LOCK_NAME,
    STATE_NAME,
    RunFolder,
    RunSummary,
    clear_state,
    differing_settings,
    find_runs,
    list_snapshots,
    summarise_run,
)
from respike.zoo.train_config import TrainConfig

from tests.test_architecture import loaded_by
from tests.zoo.batches import Notes, make_data_spec

CONFIG = TrainConfig(epochs=3)
MODEL = model_config("respike_tiny", num_classes=3, branches="hybrid")


def make_run(folder: Path, *, config: TrainConfig = CONFIG, data=None, num_epochs: int = 0, is_saved: bool = False):
    """A run as `fit` leaves it after so many epochs; `is_saved` says whether there is a snapshot to resume from."""
    run = RunFolder(folder, resume=False)
    run.write_config(config, MODEL, data or make_data_spec(), {})
    if num_epochs:
        write_history(folder, [_record(epoch) for epoch in range(1, num_epochs + 1)])
    if is_saved:
        run.write_snapshot(b"snapshot")
    run.close(is_done=False)


def _record(epoch: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        train_loss=1.0 / epoch,
        train_accuracy=0.5,
        learning_rate=0.1,
        seconds=2.0,
        clips_per_second=8.0,
        # the second is the best: as accurate as the third, and with a smaller loss
        validation={"top1": min(0.4, 0.2 * epoch), "loss": 1.0 if epoch == 2 else 1.5},
    )


def _progress_of(run: RunSummary) -> tuple[str, int, int]:
    return run.status, run.num_epochs, run.wanted_epochs


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RespikeError, match=r"cannot make .*file/run: Not a directory"):
        RunFolder(tmp_path / "file/run", resume=False)


def test_a_run_that_fails_releases_its_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunFolder(tmp_path / "run", resume=False):
        raise KeyError
    with RunFolder(tmp_path / "run", resume=False), pytest.raises(RespikeError, match="is in use"):
        RunFolder(tmp_path / "run", resume=True)


@pytest.mark.parametrize("is_done", [True, False])
def test_closing_removes_the_state_while_it_holds_the_lock(tmp_path: Path, monkeypatch, is_done: bool) -> None:
    seen = []

    def remove(path: Path, **options: bool) -> None:
        # what another process would meet at this moment
        with pytest.raises(RespikeError, match="is in use"):
            RunFolder(tmp_path, resume=True)
        seen.append(path)
        rmtree(path, **options)

    rmtree = shutil.rmtree
    monkeypatch.setattr(run_folder.shutil, "rmtree", remove)
    RunFolder(tmp_path, resume=False).close(is_done=is_done)
    assert seen == [tmp_path / STATE_NAME]
    assert list(tmp_path.iterdir()) == []


def test_clearing_a_complete_run_leaves_a_running_one_alone(tmp_path: Path) -> None:
    with RunFolder(tmp_path, resume=False):
        clear_state(tmp_path)
        assert (tmp_path / STATE_NAME / LOCK_NAME).exists()
    assert not (tmp_path / STATE_NAME).exists()


def test_two_snapshots_stay_and_a_damaged_one_is_removed(tmp_path: Path) -> None:
    notes = Notes()
    with RunFolder(tmp_path, resume=False) as folder:
        assert folder.find_snapshot(notes) is None
        for content in (b"one", b"two", b"three"):
            folder.write_snapshot(content)
        newest, before = list_snapshots(tmp_path)
        assert (folder.find_snapshot(notes), newest.read_bytes(), before.read_bytes()) == (newest, b"three", b"two")
        newest.write_bytes(b"thr")
        assert folder.find_snapshot(notes) == before
        assert f"{newest} is damaged" in notes.warned[0]
        assert before.name in notes.warned[0]
        assert list_snapshots(tmp_path) == [before]
        before.write_bytes(b"")
        with pytest.raises(CheckpointError, match="every saved state of the training is damaged"):
            folder.find_snapshot(notes)
        assert before.exists()


def test_runs_without_a_finished_epoch_are_summarised(tmp_path: Path) -> None:
    make_run(tmp_path / "a/saved", is_saved=True)
    make_run(tmp_path / "b/unsaved")
    assert find_runs(tmp_path) == [tmp_path / "a/saved", tmp_path / "b/unsaved"]
    saved, unsaved = map(summarise_run, find_runs(tmp_path))
    assert (_progress_of(saved), _progress_of(unsaved)) == (("stopped", 0, 3), ("ended", 0, 3))
    assert (saved.best, saved.last, saved.seconds) == (None, None, 0)
    assert json.loads(json.dumps(saved.to_json()))["best"] is None
    assert (saved.dataset, saved.fingerprint) == ("bits", "f" * 64)


def test_a_run_is_done_stopped_or_ended_by_what_it_left(tmp_path: Path) -> None:
    for name, num_epochs, is_saved in (("done", 3, False), ("stopped", 2, True), ("ended", 2, False)):
        make_run(tmp_path / name, num_epochs=num_epochs, is_saved=is_saved)
        assert _progress_of(summarise_run(tmp_path / name)) == (name, num_epochs, 3)


def test_the_best_epoch_has_the_best_metric_and_then_loss(tmp_path: Path) -> None:
    make_run(tmp_path, num_epochs=3)
    run = summarise_run(tmp_path)
    assert (run.best.epoch, run.last.epoch, run.seconds) == (2, 3, 6.0)


@pytest.mark.parametrize("is_held", [True, False])
def test_a_run_is_running_while_its_process_holds_the_lock(tmp_path: Path, is_held: bool) -> None:
    make_run(tmp_path, is_saved=True)
    lock = tmp_path / STATE_NAME / LOCK_NAME
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "for": "respike train"}
    with folder_lock(lock, "respike train") if is_held else nullcontext():
        # a killed process leaves this file, and its number may belong to another process now
        lock.with_suffix(".owner.json").write_text(json.dumps(owner))
        run = summarise_run(tmp_path)
    assert (run.status, run.host) == (("running", socket.gethostname()) if is_held else ("stopped", None))


def test_a_run_of_an_early_version_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path, num_epochs=3)
    (tmp_path / CONFIG_NAME).write_text(json.dumps(CONFIG.to_json()))
    with pytest.raises(RespikeError, match="does not describe a training"):
        summarise_run(tmp_path)
    spec = CheckpointSpec(
        model=MODEL.to_json(), image_size=32, data=make_data_spec(), training=CONFIG.to_json(), epoch=3, scores={}
    )
    save_checkpoint(tmp_path / LAST_NAME, ReSpike(MODEL), spec)
    run = summarise_run(tmp_path)
    assert (*_progress_of(run), run.dataset) == ("done", 3, 3, make_data_spec().dataset)


def test_a_locked_run_of_another_machine_counts_as_running(tmp_path: Path) -> None:
    make_run(tmp_path, is_saved=True)
    owner = (tmp_path / STATE_NAME / LOCK_NAME).with_suffix(".owner.json")
    owner.write_text(json.dumps({"pid": 2**22 + 1, "host": "node7", "for": "respike train"}))
    run = summarise_run(tmp_path)
    assert (run.status, run.host) == ("running", "node7")


def test_differing_settings_are_named_for_network_and_data_too(tmp_path: Path) -> None:
    make_run(tmp_path / "a", num_epochs=3)
    other = make_data_spec(fingerprint="e" * 64, settings={**make_data_spec().settings, "threshold": 16})
    make_run(tmp_path / "b", config=dataclasses.replace(CONFIG, learning_rate=0.5), data=other)
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
    make_run(tmp_path, num_epochs=1)
    (tmp_path / "config.json").write_text(text)
    assert find_runs(tmp_path) == [tmp_path]
    with pytest.raises(RespikeError, match=r"config\.json"):
        summarise_run(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match=r"holds no config\.json"):
        summarise_run(tmp_path)


def test_listing_runs_loads_neither_torch_nor_tensorboard(tmp_path: Path) -> None:
    make_run(tmp_path / "a", num_epochs=3)
    code = f"""
from pathlib import Path
from respike.zoo.run_folder import find_runs, summarise_run
from respike.zoo.run_request import read_run_request
assert [summarise_run(folder).status for folder in find_runs(Path({str(tmp_path)!r}))] == ["done"]
read_run_request(Path({str(tmp_path / "a")!r}), None)
"""
    assert not {"torch", "timm", "tensorboard"} & loaded_by(code)
