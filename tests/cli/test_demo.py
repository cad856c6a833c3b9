"""The demo: what it makes, what it takes for its own, and what it leaves alone."""

from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.workflows.demo import claim_folder, clear_run, require_own_videos, run_demo

FOREIGN = [
    "runs/hybrid/best.safetensors",
    "runs/snn/notes.txt",
    "report.html",
    "curves.png",
    "clips.png",
    "videos/train/mine/a.mp4",
    "videos/test/disc-left/holiday.mp4",
    "videos/holiday.mp4",
]


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    return path


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_the_demo_has_not_made_is_refused_first(tmp_path, name):
    mine = put(tmp_path / name)
    with pytest.raises(RespikeError) as refused:
        run_demo(tmp_path, ablate=True)
    # the file itself, or the folder that it is in
    assert any(str(path) in refused.value.problem for path in (mine, mine.parent))
    assert refused.value.hint == "move it away, or choose another folder"
    assert mine.read_bytes() == b"mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_the_command_refuses_such_a_file_as_well(call, tmp_path):
    put(tmp_path / "report.html")
    answer = call("demo", "--out", tmp_path)
    assert answer.code == 1
    assert f"{tmp_path / 'report.html'} was not made by the demo" in answer.err


def test_runs_that_this_demo_does_not_train_are_ignored(tmp_path):
    put(tmp_path / "runs/snn/best.safetensors")
    put(tmp_path / "runs/mine/best.safetensors")
    claim_folder(tmp_path, ["hybrid"])


def test_a_run_of_the_demo_is_emptied_and_still_its_own(tmp_path):
    run = tmp_path / "runs" / "hybrid"
    claim_folder(tmp_path, ["hybrid"])
    clear_run(run)
    put(run / "best.safetensors")
    put(run / "tensorboard" / "events")
    put(tmp_path / "report.html")
    claim_folder(tmp_path, ["hybrid"])
    clear_run(run)
    assert [path for path in run.iterdir() if not path.name.startswith(".")] == []
    claim_folder(tmp_path, ["hybrid"])


def test_a_link_to_a_run_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    clear_run(elsewhere)
    put(elsewhere / "best.safetensors")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hybrid").symlink_to(elsewhere)
    with pytest.raises(RespikeError, match="was not made by the demo"):
        claim_folder(tmp_path, ["hybrid"])


def test_videos_of_the_demo_and_temporary_files_are_its_own(tmp_path):
    for name in (
        "train/disc-left/00.mp4",
        "test/disc-left/11.mp4",
        "train/disc-left/.03.mp4",
        "demo.json",
        ".begun.json",
    ):
        put(tmp_path / name)
    require_own_videos(tmp_path)


def test_an_ablation_of_the_demo_does_not_train_on_other_videos(call, tmp_path):
    put(tmp_path / "videos/train/mine/a.mp4")
    answer = call("ablate", "demo", "--out", tmp_path, "--videos", "1")
    assert answer.code == 1
    assert "videos/train/mine was not made by the demo" in answer.err
