"""Demo folder: what the demo takes for its own, and what it leaves to whoever made it."""

from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.workflows.demo_folder import claim_folder, renew_run, require_own_videos

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
def test_what_the_demo_has_not_made_is_refused_before_anything_is_made(call, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    mine = put(tmp_path / name)
    answer = call("demo", "--out", ".", "--ablate")
    assert answer.code == 1
    error, hint = answer.err.splitlines()
    # the file itself, or the folder that it makes foreign
    assert any(str(Path(name, *[".."] * up).resolve().relative_to(tmp_path)) in error for up in (0, 1))
    assert hint == "hint: move it away, or give another --out"
    assert mine.read_bytes() == b"mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_a_run_that_this_demo_does_not_train_is_none_of_its_business(tmp_path):
    put(tmp_path / "runs/snn/best.safetensors")
    put(tmp_path / "runs/mine/best.safetensors")
    claim_folder(tmp_path, ["hybrid"])


def test_a_run_of_the_demo_s_own_is_made_anew_and_known_again(tmp_path):
    run = tmp_path / "runs" / "hybrid"
    claim_folder(tmp_path, ["hybrid"])
    renew_run(run)
    put(run / "best.safetensors")
    put(run / "tensorboard" / "events")
    put(tmp_path / "report.html")
    claim_folder(tmp_path, ["hybrid"])
    renew_run(run)
    assert [path for path in run.iterdir() if not path.name.startswith(".")] == []
    claim_folder(tmp_path, ["hybrid"])


def test_a_link_to_a_run_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    renew_run(elsewhere)
    put(elsewhere / "best.safetensors")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hybrid").symlink_to(elsewhere)
    with pytest.raises(RespikeError, match="was not made by this demo"):
        claim_folder(tmp_path, ["hybrid"])


def test_videos_of_the_demo_and_files_under_way_are_its_own(tmp_path):
    for name in (
        "train/disc-left/00.mp4",
        "test/disc-left/11.mp4",
        "train/disc-left/.03.mp4",
        "demo.json",
        ".begun.json",
    ):
        put(tmp_path / name)
    require_own_videos(tmp_path)


def test_an_ablation_of_the_demo_does_not_learn_from_another_s_videos(call, tmp_path):
    put(tmp_path / "videos/train/mine/a.mp4")
    answer = call("ablate", "demo", "--out", tmp_path, "--videos", "1")
    assert answer.code == 1
    assert "videos/train/mine is not of the demo's making" in answer.err
