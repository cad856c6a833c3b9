"""Preparation from Python: defaults of a data set, settings by name, and settings without effect."""

import dataclasses
from pathlib import Path

import pytest
from respike import PrepareConfig, open_shards, prepare
from respike.common.errors import SettingError
from respike.data.plan import Part
from respike.workflows import preparation
from respike.workflows.preparation import UnusedSettingError, check_videos


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_is_prepared_to_the_default_place(video_folder: Path) -> None:
    summary = prepare("folder", video_folder, config={"clip_length": 8}, workers=1)
    assert (summary.out, summary.listed, summary.written) == (Path("shards/folder"), 12, 12)
    assert open_shards("shards/folder").spec.settings == PrepareConfig(clip_length=8).to_json()
    again = prepare("folder", video_folder, config=PrepareConfig(clip_length=8), workers=1)
    assert again.num_built == 0


class _Listed:
    warnings = ()


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, PrepareConfig]]:
    """The folders and settings of the calls of `prepare`, which then lists and builds nothing."""
    calls: list[tuple[object, PrepareConfig]] = []

    def note(listing: object, out: object, settings: PrepareConfig, **others: object) -> None:
        calls.append((out, settings))
        raise SettingError("enough")

    kinds = {name: preparation.DATASETS[name] for name in ("ucf101", "kinetics400")}
    fakes = {name: dataclasses.replace(kind, list_videos=lambda _: _Listed()) for name, kind in kinds.items()}
    monkeypatch.setattr(preparation, "DATASETS", fakes)
    monkeypatch.setattr(preparation, "prepare_listing", note)
    return calls


def test_a_data_set_has_its_own_sampling_and_folder(prepared: list[tuple[object, PrepareConfig]]) -> None:
    for arguments in ({"dataset": "ucf101", "split": 2}, {"dataset": "kinetics400"}):
        with pytest.raises(SettingError, match="enough"):
            prepare(**arguments)
    with pytest.raises(SettingError, match="enough"):
        prepare("kinetics400", config={"sampling": "dense", "clip_step": 4})
    assert [str(out) for out, _ in prepared] == ["shards/ucf101-split2", "shards/kinetics400", "shards/kinetics400"]
    assert [config.sampling for _, config in prepared] == ["dense", "uniform", "dense"]


@pytest.mark.parametrize(
    ("arguments", "problem", "setting"),
    [
        ({"split": 2}, "folder has no splits", "split"),
        ({"dataset": "ucf101", "split": 4}, "has the splits 1, 2, 3", "split"),
        ({"dataset": "ucf101", "list_path": "x.csv"}, "ucf101 has its own lists", "list_path"),
        ({"config": {"clips_per_video": 2}}, "clips_per_video is for the sampling uniform", "clips_per_video"),
        ({"dataset": "kinetics400", "config": {"clip_step": 8}}, "clip_step is for the sampling dense", "clip_step"),
        ({"offline": True}, "offline needs download", "offline"),
        ({"ray_address": "head:6379"}, "ray_address needs the executor ray", "ray_address"),
        ({"existing": "overwrite", "part": Part(number=1, count=2)}, "would delete", "overwrite"),
    ],
)
def test_a_setting_without_effect_is_refused(arguments: dict[str, object], problem: str, setting: str) -> None:
    with pytest.raises(UnusedSettingError, match=problem) as caught:
        prepare(**{"dataset": "folder", **arguments})
    assert caught.value.setting == setting
    assert not list(Path().iterdir())


def test_an_executor_by_another_name_is_refused(video_folder: Path) -> None:
    with pytest.raises(SettingError, match="executor is 'slurm'"):
        prepare("folder", video_folder, executor="slurm")


def test_videos_are_checked_without_writing(video_folder: Path) -> None:
    listing, report = check_videos("folder", video_folder, workers=1)
    assert (len(listing.videos), report.listed, report.missing, report.unreadable) == (12, 12, 0, 0)
    assert not list(Path().iterdir())
