"""Defaults that hang on what lies on disk."""

from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.types import DataSpec
from respike.workflows import inputs
from respike.workflows.inputs import choose_num_workers, choose_run_folder, find_data


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _make_data(*names: str) -> None:
    for name in names:
        (Path("shards") / name).mkdir(parents=True)
        (Path("shards") / name / "dataset.json").write_text("{}")


def test_the_only_data_set_is_taken() -> None:
    _make_data("hmdb51-split1")
    (Path("shards") / "unfinished").mkdir()
    assert find_data(None) == "shards/hmdb51-split1"


def test_a_data_set_that_is_named_is_taken_as_it_is() -> None:
    assert find_data("s3://bucket/ucf101") == "s3://bucket/ucf101"


def test_several_data_sets_are_listed() -> None:
    _make_data("b", "a")
    with pytest.raises(RespikeError, match="2 data sets: a, b") as caught:
        find_data(None)
    assert "shards/a" in caught.value.hint


def test_no_data_set_leads_to_prepare() -> None:
    with pytest.raises(RespikeError, match="no data set under shards/") as caught:
        find_data(None)
    assert "respike prepare" in caught.value.hint


def _spec(split: int | None) -> DataSpec:
    return DataSpec(dataset="ucf101", split=split, evaluation_subset="test", classes=("a", "b"))


def test_a_run_is_named_after_model_data_and_split() -> None:
    assert choose_run_folder(None, "respike_r18", _spec(2)) == Path("runs/respike_r18-ucf101-split2")
    assert choose_run_folder(None, "respike_r18", _spec(None)) == Path("runs/respike_r18-ucf101")


def test_a_name_that_is_taken_gets_a_number() -> None:
    for expected in ("m-ucf101", "m-ucf101-2", "m-ucf101-3"):
        folder = choose_run_folder(None, "m", _spec(None))
        assert folder == Path("runs") / expected
        folder.mkdir(parents=True)


def test_a_run_folder_that_is_named_is_taken_as_it_is() -> None:
    assert choose_run_folder(Path("mine"), "m", _spec(1)) == Path("mine")


def test_workers_are_few_on_a_cpu_and_many_beside_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "usable_cpus", lambda: 16)
    assert (choose_num_workers(None, "cpu"), choose_num_workers(None, "cuda"), choose_num_workers(3, "cpu")) == (
        0,
        8,
        3,
    )
    monkeypatch.setattr(inputs, "usable_cpus", lambda: 1)
    assert choose_num_workers(None, "cuda") == 1
