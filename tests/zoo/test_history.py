"""History: written whole, read back the same."""

import resource
from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.zoo.history import EpochRecord, History, read_history
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RECORDS = [
    EpochRecord(
        epoch=epoch,
        train_loss=1.0 / epoch,
        train_accuracy=0.5,
        learning_rate=0.1,
        seconds=2.0,
        clips_per_second=8.0,
        validation={"top1": 0.25 * epoch},
        waited_share=0.125 * epoch,
        firing_rates={"snn.stages.0.blocks.0.lif1": 0.5 / epoch},
    )
    for epoch in (1, 2)
]


def _write(folder: Path) -> None:
    history = History(folder)
    history.write(RECORDS[:1])
    history.write(RECORDS)
    history.close()


def test_epochs_read_back_as_they_were_written(tmp_path: Path) -> None:
    _write(tmp_path)
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2
    assert read_history(tmp_path) == tuple(RECORDS)


def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    _write(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name, values in (
        ("validation/top1", [0.25, 0.5]),
        ("train/loss", [1.0, 0.5]),
        ("train/clips_per_second", [8.0, 8.0]),
        ("train/waited_share", [0.125, 0.25]),
        ("firing_rate/snn.stages.0.blocks.0.lif1", [0.5, 0.25]),
    ):
        assert [(scalar.step, scalar.value) for scalar in events.Scalars(name)] == list(
            zip((1, 2), values, strict=True)
        )


def test_a_disk_that_takes_no_more_events_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    history = History(tmp_path)
    history.write(RECORDS[:1])
    size = next((tmp_path / "tensorboard").iterdir()).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # a part of the next record fits
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(RespikeError, match=r"cannot write .*tfevents.*File too large"):
            history.write(RECORDS[:1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    history.close()
    assert read_history(tmp_path) == tuple(RECORDS[:1])
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match=r"holds no history\.jsonl"):
        read_history(tmp_path)


@pytest.mark.parametrize("text", ['{"epoch": 1', '{"epoch": 1}', '{"what": 1}', "[1]"])
def test_a_damaged_history_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.jsonl").write_text(text)
    with pytest.raises(RespikeError, match="cannot read"):
        read_history(tmp_path)
