"""Resuming: a training that is stopped, killed or crashes continues to the weights it would have had."""

import dataclasses
import itertools
import json
import math
import random
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from respike.common.errors import CheckpointError, MismatchError, RespikeError, StoppedError
from respike.zoo import trainer
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.checkpoint_spec import read_spec
from respike.zoo.factory import create_model
from respike.zoo.history import read_history
from respike.zoo.run_folder import BEST_NAME, LAST_NAME, list_snapshots, summarise_run
from respike.zoo.snapshot import Snapshot, read_snapshot, take_snapshot
from respike.zoo.train_config import TrainConfig
from respike.zoo.trainer import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import files_under
from tests.processes import forking_context
from tests.zoo.batches import Notes
from tests.zoo.resuming import CONFIG, run, run_in_child, tensors_of, weights_of


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("undisturbed")
    run(out, resume=False)
    torch.set_num_threads(before)
    return out


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped after a few updates."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("stopped")
    _cut_short(out)
    torch.set_num_threads(before)
    return out


def _stop_after(num_asked: int):
    """Ask to stop when asked for the n-th time, which is after an update."""
    asked = itertools.count(1)
    return lambda: next(asked) >= num_asked


def _facts_of(out: Path) -> list[dict[str, object]]:
    """The history without times and memory use."""
    kept = ("epoch", "train_loss", "train_accuracy", "learning_rate", "validation", "firing_rates")
    return [{name: getattr(record, name) for name in kept} for record in read_history(out)]


@pytest.mark.parametrize("num_asked", [1, 3])
def test_a_stopped_training_continues_to_the_same_bits(undisturbed, tmp_path, num_asked) -> None:
    with pytest.raises(StoppedError, match="it is saved in"):
        run(tmp_path, should_stop=_stop_after(num_asked))
    run(tmp_path)
    assert weights_of(tmp_path) == weights_of(undisturbed)
    assert _facts_of(tmp_path) == _facts_of(undisturbed)
    for name in (BEST_NAME, LAST_NAME):
        assert read_spec(tmp_path / name) == read_spec(undisturbed / name)


def test_a_stop_at_the_end_of_an_epoch_keeps_its_firing_rates(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, accumulation_steps=3)
    run(tmp_path / "whole", config=config)
    with pytest.raises(StoppedError, match="after batch 3 of 3"):
        run(tmp_path / "cut", config=config, should_stop=_stop_after(1))
    run(tmp_path / "cut", config=config)
    assert _facts_of(tmp_path / "cut") == _facts_of(tmp_path / "whole")
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_a_source_that_cannot_seek_is_read_to_its_position(tmp_path) -> None:
    run(tmp_path / "whole", is_seekable=False)
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", is_seekable=False, should_stop=_stop_after(3))
    run(tmp_path / "cut", is_seekable=False)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


class _CrashError(BaseException):
    pass


def _run_with_a_crash(
    out: Path, moment: int, monkeypatch: pytest.MonkeyPatch, *, is_renamed: bool, config: TrainConfig = CONFIG
) -> bool:
    """Train, and crash just before or after the `moment`-th rename; False where there were fewer."""
    numbers = itertools.count()
    rename = Path.replace

    def replace(path: Path, target: Path) -> Path:
        is_now = next(numbers) == moment
        if is_now and not is_renamed:
            raise _CrashError
        answer = rename(path, target)
        if is_now:
            raise _CrashError
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        try:
            run(out, config=config)
        except _CrashError:
            return True
    return False


# the lock's owner, the settings, the first snapshots, and the files of an epoch
@pytest.mark.parametrize("moment", [0, 3, 7, 10, 12])
def test_a_crash_at_a_write_costs_nothing(undisturbed, tmp_path, monkeypatch, moment) -> None:
    assert _run_with_a_crash(tmp_path, moment, monkeypatch, is_renamed=moment % 2 == 0)
    run(tmp_path)
    assert weights_of(tmp_path) == weights_of(undisturbed)


@pytest.mark.slow
def test_a_crash_before_or_after_any_write_costs_nothing(undisturbed, tmp_path, monkeypatch) -> None:
    for moment, is_renamed in itertools.product(range(100), (False, True)):
        out = tmp_path / f"{moment}-{is_renamed}"
        if not _run_with_a_crash(out, moment, monkeypatch, is_renamed=is_renamed):
            break
        run(out)
        assert weights_of(out) == weights_of(undisturbed), (moment, is_renamed)
    assert moment > 20


def _start(out: Path) -> BaseProcess:
    # processes that are forked with torch loaded start at once
    process = forking_context().Process(target=run_in_child, args=(str(out),))
    process.start()
    return process


def _kill_until_done(out: Path, num_kills: int, generator: random.Random) -> int:
    """Kill a training that many times, each time a while after it was seen to save; return how many hit it."""
    num_hits = 0
    for _ in range(num_kills):
        before = list_snapshots(out)
        process = _start(out)
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline:
            if list_snapshots(out) != before:
                time.sleep(generator.random() * 0.3)
                break
            time.sleep(0.005)
        num_hits += process.is_alive()
        process.kill()
        process.join()
    process = _start(out)
    process.join(timeout=200)
    assert process.exitcode == 0
    return num_hits


def test_a_killed_training_continues_to_the_same_bits(undisturbed, tmp_path) -> None:
    # the training may be complete before the later ones
    assert _kill_until_done(tmp_path, 3, random.Random(0)) >= 1
    assert weights_of(tmp_path) == weights_of(undisturbed)
    assert _facts_of(tmp_path) == _facts_of(undisturbed)
    assert not (tmp_path / "state").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_run_killed_at_its_last_step_is_cleaned_up(undisturbed, tmp_path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    (tmp_path / "run" / "state").mkdir()
    (tmp_path / "run" / "state" / "00000009.safetensors").write_bytes(b"half removed")
    run(tmp_path / "run")
    assert not (tmp_path / "run" / "state").exists()
    assert weights_of(tmp_path / "run") == weights_of(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_kills_cost_nothing(undisturbed, tmp_path) -> None:
    generator = random.Random(1)
    num_hits = 0
    for number in range(15):
        num_hits += _kill_until_done(tmp_path / str(number), 5, generator)
        assert weights_of(tmp_path / str(number)) == weights_of(undisturbed)
    assert num_hits >= 50


def _cut_short(out: Path) -> list[Path]:
    """A training stopped after a few updates; its snapshots, the newest first."""
    with pytest.raises(StoppedError):
        run(out, should_stop=_stop_after(3))
    return list_snapshots(out)


def _copy(run: Path, out: Path) -> list[Path]:
    """Copy a run to the folder `out`; return its snapshots, the newest first."""
    shutil.copytree(run, out, dirs_exist_ok=True)
    return list_snapshots(out)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [_flip, _cut, lambda path: path.write_bytes(b"")], ids=["flipped", "cut", "empty"])
def test_instead_of_a_damaged_snapshot_the_one_before_is_used(undisturbed, stopped, tmp_path, damage) -> None:
    newest, before = _copy(stopped, tmp_path)
    damage(newest)
    notes = Notes()
    run(tmp_path, progress=notes)
    assert f"{newest} is damaged" in notes.warned[0]
    assert before.name in notes.warned[0]
    assert weights_of(tmp_path) == weights_of(undisturbed)


def test_a_snapshot_of_another_torch_version_warns(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    _cut_short(tmp_path)
    monkeypatch.undo()
    notes = Notes()
    assert len(run(tmp_path, progress=notes).history) == CONFIG.epochs
    assert len(notes.warned) == 1
    assert "saved with torch 2.0.0, this is" in notes.warned[0]


def test_a_snapshot_without_a_torch_version_does_not_warn(undisturbed, tmp_path, monkeypatch) -> None:
    def take_older(*given: Any) -> Snapshot:
        snapshot = take_snapshot(*given)
        del snapshot.facts["torch_version"]
        return snapshot

    with monkeypatch.context() as earlier:
        earlier.setattr(trainer, "take_snapshot", take_older)
        newest = _cut_short(tmp_path)[0]
    assert "torch_version" not in read_snapshot(newest).facts
    notes = Notes()
    run(tmp_path, progress=notes)
    assert notes.warned == []
    assert weights_of(tmp_path) == weights_of(undisturbed)


def test_if_all_snapshots_are_damaged_they_are_kept(stopped, tmp_path) -> None:
    paths = _copy(stopped, tmp_path)
    for path in paths:
        _cut(path)
    with pytest.raises(CheckpointError, match="every saved state of the training is damaged"):
        run(tmp_path)
    assert all(path.exists() for path in paths)


def test_resuming_an_empty_folder_starts_a_training(undisturbed, tmp_path) -> None:
    notes = Notes()
    run(tmp_path / "new", progress=notes)
    assert "the training starts from the beginning" in notes.said[0]
    assert weights_of(tmp_path / "new") == weights_of(undisturbed)


def test_resuming_a_complete_run_changes_nothing(undisturbed) -> None:
    before = files_under(undisturbed)
    result = run(undisturbed)
    assert result.history == read_history(undisturbed)
    assert result.best_epoch == load_checkpoint(result.best)[1].epoch
    assert files_under(undisturbed) == before


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 1e-4, "seed": 3}, {"ema_decay": None}],
    ids=lambda each: next(iter(each)),
)
@pytest.mark.parametrize("is_done", [True, False])
def test_a_run_is_not_resumed_with_other_settings(undisturbed, stopped, tmp_path, changes, is_done) -> None:
    if not is_done:
        _copy(stopped, tmp_path)
    with pytest.raises(MismatchError) as caught:
        run(undisturbed if is_done else tmp_path, config=dataclasses.replace(CONFIG, **changes))
    assert all(name in caught.value.problem for name in changes)
    # its own settings stay, so that it can still be resumed with them
    facts = json.loads(((undisturbed if is_done else tmp_path) / "config.json").read_text())
    assert facts["training"] == CONFIG.to_json()


@pytest.mark.parametrize("is_done", [True, False])
def test_a_setting_younger_than_the_run_has_its_default(undisturbed, tmp_path, monkeypatch, is_done) -> None:
    def without_crop(self: TrainConfig) -> dict:
        return {name: value for name, value in to_json(self).items() if name != "crop"}

    to_json = TrainConfig.to_json
    with monkeypatch.context() as earlier:
        earlier.setattr(TrainConfig, "to_json", without_crop)
        _cut_short(tmp_path)
        if is_done:
            run(tmp_path)
    with pytest.raises(MismatchError, match="crop"):
        run(tmp_path, config=dataclasses.replace(CONFIG, crop="multi-scale"))
    run(tmp_path)
    assert weights_of(tmp_path) == weights_of(undisturbed)


def test_the_interval_of_saves_may_change(undisturbed, stopped, tmp_path) -> None:
    _copy(stopped, tmp_path)
    run(tmp_path, config=dataclasses.replace(CONFIG, save_every_updates=None, save_every_minutes=1.0))
    assert weights_of(tmp_path) == weights_of(undisturbed)


def test_without_resume_a_stopped_run_is_left_alone(stopped, tmp_path) -> None:
    paths = _copy(stopped, tmp_path)
    with pytest.raises(RespikeError, match="holds a run already"):
        run(tmp_path, resume=False)
    assert all(path.exists() for path in paths)


def test_two_trainings_do_not_share_a_folder(tmp_path) -> None:
    def should_stop() -> bool:
        with pytest.raises(RespikeError, match="is in use: process"):
            run(tmp_path)
        return True

    with pytest.raises(StoppedError):
        run(tmp_path, should_stop=should_stop)


def test_tensorboard_holds_every_epoch_once(tmp_path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, should_stop=_stop_after(3))
    run(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [1, 2]


def test_a_snapshot_is_a_plain_safetensors_file(stopped, tmp_path) -> None:
    from safetensors import safe_open

    newest, _ = _copy(stopped, tmp_path)
    with safe_open(newest, framework="np") as file:
        facts = json.loads(file.metadata()["facts"])
        names = set(file.keys())
    assert facts["num_updates"] == 3 * (facts["epoch"] - 1) + facts["step"] >= 3
    assert {name.partition("/")[0] for name in names} == {"model", "average", "optimizer"}


def _more(epochs: int, **settings: Any) -> TrainConfig:
    return dataclasses.replace(CONFIG, epochs=epochs, **settings)


def test_a_complete_run_can_get_more_epochs(undisturbed, tmp_path) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    first = read_history(tmp_path)
    notes = Notes()
    result = run(tmp_path, config=_more(4), progress=notes)
    assert [record.epoch for record in result.history] == [1, 2, 3, 4]
    assert result.history[:2] == first
    assert read_history(tmp_path) == result.history
    # the cosine of twelve updates after six of them
    assert any(
        "4 epochs instead of 2: the learning rate continues at 0.001, the value of a cosine schedule of 4 epochs at "
        "this point; the optimizer starts again" in line
        for line in notes.said
    )
    assert result.history[2].learning_rate == pytest.approx(CONFIG.learning_rate * (1 + math.cos(math.pi * 8 / 12)) / 2)
    _, spec = load_checkpoint(result.last)
    assert (spec.epoch, spec.training["epochs"], len(spec.train_videos)) == (4, 4, 9)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["epochs"] == 4
    summary = summarise_run(tmp_path)
    assert (summary.status, summary.num_epochs, summary.wanted_epochs) == ("done", 4, 4)
    assert _steps_of(tmp_path) == [1, 2, 3, 4]
    # now complete, it does not change any more
    before = weights_of(tmp_path)
    assert run(tmp_path, config=_more(4)).history == result.history
    assert weights_of(tmp_path) == before


def _steps_of(out: Path) -> list[int]:
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def test_more_epochs_start_from_the_last_weights(undisturbed, tmp_path, monkeypatch) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    last, _ = load_checkpoint(tmp_path / LAST_NAME)
    started = []

    def stop(trainer: Trainer, _: Any) -> None:
        weights = {name: each.clone() for name, each in trainer.state.model.state_dict().items()}
        started.append((weights, trainer.state.best_epoch))
        raise _CrashError

    monkeypatch.setattr(Trainer, "train_epoch", stop)
    best = tensors_of(tmp_path / BEST_NAME)
    with pytest.raises(_CrashError):
        run(tmp_path, config=_more(4))
    weights, best_epoch = started[0]
    assert all(torch.equal(weights[name], each) for name, each in last.state_dict().items())
    assert load_checkpoint(tmp_path / BEST_NAME)[1].epoch == best_epoch
    assert tensors_of(tmp_path / BEST_NAME) == best


# the lock's owner, the settings, the first save, the rewritten checkpoints, the end of an epoch
@pytest.mark.parametrize("moment", [0, 1, 2, 3, 4, 5, 8])
def test_a_crash_during_an_extension_loses_no_epoch(undisturbed, tmp_path, monkeypatch, moment) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "run")
    first = read_history(out)
    assert _run_with_a_crash(out, moment, monkeypatch, is_renamed=moment % 2 == 0, config=_more(3))
    result = run(out, config=_more(3))
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert result.history[:2] == first


def test_a_stopped_run_with_more_epochs_has_the_same_bits(tmp_path) -> None:
    settings = {"schedule": "constant", "warmup_share": 0.0}
    run(tmp_path / "whole", config=_more(3, **settings))
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", config=_more(2, **settings), should_stop=_stop_after(3))
    notes = Notes()
    run(tmp_path / "cut", config=_more(3, **settings), progress=notes)
    assert any("3 epochs instead of 2: the learning rate continues at 0.002" in line for line in notes.said)
    assert not any("starts again" in line for line in notes.said)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_fewer_epochs_and_another_network_are_refused(undisturbed, tmp_path) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    with pytest.raises(MismatchError, match="differs in epochs"):
        run(tmp_path, config=_more(1))
    with pytest.raises(MismatchError, match="differs in epochs, learning_rate"):
        run(tmp_path, config=_more(4, learning_rate=1.0))
    before = files_under(tmp_path)
    with pytest.raises(MismatchError, match="another network, respike_tiny with branches hybrid"):
        run(tmp_path, config=_more(4), model=create_model("respike_tiny", num_classes=3, branches="concat"))
    assert files_under(tmp_path) == before
