"""The main job, as a user types it: raw videos → prepare → inspect → train → score."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from respike.data.video_writer import write_video
from respike.workflows.demo import claim_folder, clear_run

from tests.conftest import REAL_CLIPS, moving_square

RESPIKE = (sys.executable, "-m", "respike")


def run(
    *arguments, cwd: Path, code: int = 0, num_threads: int = 1, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": str(num_threads)}
    answer = subprocess.run(
        [*RESPIKE, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, env=environment, timeout=timeout
    )
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with videos of two classes under data/folder, prepared with bare commands."""
    root = tmp_path_factory.mktemp("work")
    for number in range(14):
        folder = root / "data" / "folder" / ("left", "right")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        frames = moving_square(34, width=72, height=64, seed=number)
        write_video(folder / f"{number:02d}.mp4", iter(frames if number % 2 else frames[::-1]))
    (root / "data" / "folder" / "left" / "broken.mp4").write_bytes(b"no video")
    run("prepare", "folder", "--videos-per-shard", 4, cwd=root)
    return root


def test_prepare_train_score_with_bare_commands(workplace):
    facts = json.loads(run("inspect", "shards/folder", "--json", "--png", "sheet.png", cwd=workplace).stdout)
    assert facts["videos"]["skipped"] == 1
    assert facts["num_clips"] == 2 * facts["videos"]["written"]
    assert (workplace / "sheet.png").read_bytes().startswith(b"\x89PNG")
    train = ["train", "--model", "respike_tiny", "--epochs", 1, "--no-flip", "--json", "--out", "runs/one"]
    trained = json.loads(run(*train, cwd=workplace).stdout)
    assert Path(workplace / trained["best"]).is_file()
    scores = json.loads(run("score", "runs/one", "--json", cwd=workplace).stdout)
    assert set(scores) >= {"clip", "video", "num_clips", "num_videos", "fingerprint", "forced"}
    assert set(scores["clip"]) == {"top1", "top5", "mean_class_accuracy"}
    assert scores["num_clips"] == facts["subsets"]["test"]["clips"]
    assert scores["fingerprint"] == facts["fingerprint"]
    assert not scores["forced"]


def test_a_checkpoint_is_refused_on_data_of_another_stride(workplace):
    if not (workplace / "runs" / "one").is_dir():
        train = ("train", "--data", "shards/folder", "--model", "respike_tiny", "--epochs", 1, "--out", "runs/one")
        run(*train, cwd=workplace)
    run("prepare", "folder", "--stride", 2, "--out", "other", cwd=workplace)
    refused = run("score", "runs/one", "--data", "other", cwd=workplace, code=1)
    assert "stride" in refused.stderr
    forced = json.loads(run("score", "runs/one", "--data", "other", "--force", "--json", cwd=workplace).stdout)
    assert forced["forced"]


def test_prepare_again_does_nothing(workplace):
    again = json.loads(run("prepare", "folder", "--videos-per-shard", 4, "--json", cwd=workplace).stdout)
    assert again["num_built"] == 0


def test_a_missing_root_is_one_line_and_a_hint(tmp_path):
    answer = run("prepare", "ucf101", cwd=tmp_path, code=1)
    error, hint = answer.stderr.splitlines()
    assert error.startswith("error: there is no folder data/ucf101 to look for UCF101 in")
    assert "https://" in hint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prepar", "ucf101"), "Did you mean 'prepare'"),
        (("prepare", "folder", "--split", "2"), "has no splits"),
        (("prepare", "ucf101", "--list", "x.csv"), "--list is for the data set folder"),
        (("prepare", "ucf101", "--split", "4"), "has the splits 1, 2, 3"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(tmp_path, arguments, said):
    assert said in run(*arguments, cwd=tmp_path, code=2).stderr


def test_a_setting_that_is_not_allowed_is_one_line(tmp_path):
    (tmp_path / "data" / "folder").mkdir(parents=True)
    answer = run("prepare", "folder", "--stride", "5", cwd=tmp_path, code=1)
    assert "clip_length 16 is no multiple of stride 5" in answer.stderr


def test_the_real_clips_go_the_whole_way(tmp_path):
    if not REAL_CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    rows = ["apply_eye_makeup.avi,makeup,train", "arm_wrestling.mp4,arm,train", "flipping_pancake.mkv,arm,test"]
    (tmp_path / "list.csv").write_text("path,label,subset\n" + "\n".join(rows) + "\n")
    made = run("prepare", "folder", "--root", REAL_CLIPS, "--list", "list.csv", "--out", "real", "--json", cwd=tmp_path)
    facts = json.loads(made.stdout)
    assert (facts["written"], facts["num_clips"]) == (3, 46)
    assert 0.05 < facts["event_density"] < 0.3


def test_the_demo_in_the_small_writes_its_page(tmp_path):
    answer = run("demo", "--out", "demo", "--epochs", 1, "--videos", 1, "--json", cwd=tmp_path)
    assert json.loads(answer.stdout)["scores"]["hybrid"]["num_clips"] == 96
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "multiply-accumulates" in page
    # what it made is its own to make anew, and nothing else there
    assert (tmp_path / "demo" / "runs" / "hybrid" / "best.safetensors").is_file()
    claim_folder(tmp_path / "demo", ["hybrid"])
    clear_run(tmp_path / "demo" / "runs" / "hybrid")
    assert not (tmp_path / "demo" / "runs" / "hybrid" / "best.safetensors").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_hybrid_of_the_demo_beats_both_branches(tmp_path):
    answer = run("demo", "--ablate", "--json", cwd=tmp_path, num_threads=os.cpu_count() or 1, timeout=1700)
    scores = json.loads(answer.stdout)["scores"]
    assert scores["hybrid"]["clip"]["top1"] >= 0.95
    # four groups of four told apart, and within each a guess: 25 %
    assert 0.15 <= scores["ann"]["clip"]["top1"] <= 0.35
    assert 0.15 <= scores["snn"]["clip"]["top1"] <= 0.35
    assert (tmp_path / "demo" / "report.html").is_file()
