"""`respike predict`: what is printed for videos, clips and failures."""

import json
from pathlib import Path

import pytest


def test_json_is_an_object_a_line_with_latency(call, small_run: Path, video_folder: Path):
    videos = sorted(video_folder.glob("*/*.mp4"))[:2]
    answer = call("predict", small_run, *videos, "--json")
    assert (answer.code, answer.err) == (0, "")
    for line, path in zip(answer.out.splitlines(), videos, strict=True):
        told = json.loads(line)
        assert (told["video"], told["num_clips"]) == (str(path), 2)
        assert sum(guess["probability"] for guess in told["predictions"]) == pytest.approx(1)
        assert told["video_seconds"] == pytest.approx(1.6, abs=0.1)
        assert min(told["latency"].values()) > 0
        decode, network = (told["latency"][f"{part}_ms_per_clip"] for part in ("decode", "network"))
        assert told["latency"]["first_answer_ms"] <= 2 * (decode + network) + 1e-3


def test_top_says_how_many_classes_and_the_likeliest_comes_first(call, small_run: Path, video_folder: Path):
    video = next(video_folder.glob("*/*.mp4"))
    one, both = (json.loads(call("predict", small_run, video, "--top", top, "--json").out) for top in (1, 5))
    assert (len(one["predictions"]), len(both["predictions"])) == (1, 2)
    assert both["predictions"][0] == one["predictions"][0]
    assert both["predictions"][0]["probability"] >= both["predictions"][1]["probability"]


def test_a_broken_video_does_not_stop_the_others(call, small_run: Path, video_folder: Path, tmp_path: Path):
    good = next(video_folder.glob("*/*.mp4"))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[:-3000])
    answer = call("predict", small_run, cut, good, tmp_path / "none.mp4", "--quiet")
    assert answer.code == 1
    assert str(good) in answer.out
    assert str(cut) not in answer.out
    first, what_next, second, check = answer.err.splitlines()
    assert first.startswith(f"error: {cut}: open: ")
    assert what_next.startswith("hint: check that it is a whole video; ")
    assert second == f"error: {tmp_path / 'none.mp4'}: missing: No such file or directory"
    assert check == "hint: check the path"


def test_a_folder_for_a_video_is_told_to_name_those_in_it(call, small_run: Path, tmp_path: Path):
    answer = call("predict", small_run, tmp_path, "--quiet")
    assert answer.err.splitlines()[1] == f"hint: it is a folder: name the videos in it, such as {tmp_path}/*.mp4"


def test_a_broken_video_is_an_object_with_its_error_in_json(call, small_run: Path, tmp_path: Path):
    answer = call("predict", small_run, tmp_path / "none.mp4", "--json")
    assert answer.code == 1
    assert json.loads(answer.out) == {
        "video": str(tmp_path / "none.mp4"),
        "error": "missing: No such file or directory",
        "hint": "check the path",
    }


def test_each_clip_is_told_with_its_times(call, small_run: Path, video_folder: Path):
    video = next(video_folder.glob("*/*.mp4"))
    lines = [json.loads(line) for line in call("predict", small_run, video, "--each-clip", "--json").out.splitlines()]
    assert [line.get("clip") for line in lines] == [0, 1, None]
    assert (lines[0]["from_seconds"], lines[1]["from_seconds"]) == (0, 0.64)
    text = call("predict", small_run, video, "--each-clip").out
    assert f"{video.name} 0.64 to 1.24 s: " in text


def test_a_name_without_weights_predicts_nothing(call, video_folder: Path):
    answer = call("predict", "respike_tiny", next(video_folder.glob("*/*.mp4")))
    assert answer.code == 1
    assert "without weights" in answer.err
