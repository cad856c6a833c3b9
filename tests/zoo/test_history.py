"""History: written as a whole, read back the same, and a full disk reported once."""

import resource
from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.zoo.event_file import EventFile
from respike.zoo.history import EpochRecord, read_history, write_history
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


def _events(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(scalar.step, scalar.value) for scalar in events.Scalars(name)]


def test_epochs_read_back_as_they_were_written(tmp_path: Path) -> None:
    write_history(tmp_path, RECORDS[:1])
    write_history(tmp_path, RECORDS)
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2
    assert read_history(tmp_path) == tuple(RECORDS)


def test_an_epoch_of_an_early_version_has_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(
        '{"epoch":1,"train_loss":1.0,"train_accuracy":1,"learning_rate":0.1,"seconds":2,"clips_per_second":8}\n'
    )
    (record,) = read_history(tmp_path)
    assert (record.validation, record.amp, record.train_accuracy) == ({}, None, 1.0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("validation/top1", [0.25, 0.5]),
        ("train/loss", [1.0, 0.5]),
        ("train/clips_per_second", [8.0, 8.0]),
        ("train/waited_share", [0.125, 0.25]),
        ("firing_rate/snn.stages.0.blocks.0.lif1", [0.5, 0.25]),
    ],
)
def test_tensorboard_gets_every_epoch(tmp_path: Path, name: str, values: list[float]) -> None:
    events = EventFile(tmp_path / "tensorboard")
    for record in RECORDS:
        events.write(record)
    events.close()
    assert _events(tmp_path / "tensorboard", name) == list(zip((1, 2), values, strict=True))


def test_an_epoch_that_is_written_again_appears_once(tmp_path: Path) -> None:
    for first_epoch in (1, 2):
        events = EventFile(tmp_path, first_epoch=first_epoch)
        for record in RECORDS[first_epoch - 1 :]:
            events.write(record)
        events.close()
    assert _events(tmp_path, "train/loss") == [(1, 1.0), (2, 0.5)]


def test_a_full_disk_is_one_error_for_the_events(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events = EventFile(tmp_path)
    events.write(RECORDS[0])
    size = next(tmp_path.iterdir()).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # a part of the next record fits
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(RespikeError, match=r"cannot write .*tfevents.*File too large"):
            events.write(RECORDS[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    events.close()
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match=r"holds no history\.jsonl"):
        read_history(tmp_path)


@pytest.mark.parametrize("text", ['{"epoch": 1', '{"epoch": 1}', '{"what": 1}', "[1]"])
def test_a_damaged_history_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.jsonl").write_text(text)
    with pytest.raises(RespikeError, match="cannot read"):
        read_history(tmp_path)
