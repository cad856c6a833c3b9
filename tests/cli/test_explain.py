"""`respike explain`: pictures and numbers of one clip, from shards and from a video alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from respike.data import open_shards

from tests.cli.conftest import write_run

PICTURES = ["attention.png", "evidence.png", "rasters.png", "rates.png"]


def test_a_clip_of_shards_is_explained_in_pictures_and_numbers(call, small_run: Path, small_shards: Path, tmp_path):
    answer = call("explain", small_run, small_shards, "--clip", "3", "--out", tmp_path / "why")
    assert answer.code == 0
    names = sorted(path.name for path in (tmp_path / "why").iterdir())
    assert names == sorted([*PICTURES, "explanation.json", "arrays.npz"])
    assert all((tmp_path / "why" / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    told = json.loads((tmp_path / "why/explanation.json").read_text())
    clip = open_shards(small_shards)[3]
    assert (told["video"], told["clip"], told["class"]) == (clip.info.video, clip.info.clip_index, clip.info.class_name)
    # of 32 pixels the two fused scales have 2 × 2 tokens and 1
    assert [(row["scale"], row["grid"], len(row["top"])) for row in told["attention"]] == [
        (2, [2, 2], 4),
        (3, [1, 1], 1),
    ]
    assert len(told["firing_rates"]) == 8
    with np.load(tmp_path / "why/arrays.npz") as arrays:
        assert arrays["verdict"].tolist() == told["verdict"]
        assert arrays["attention.2"].shape == (2, 2, 2)


def test_a_video_is_explained_as_its_shards_are(call, small_run: Path, small_shards: Path, video_folder, tmp_path):
    dataset = open_shards(small_shards)
    number = next(number for number, row in enumerate(dataset.clips) if row.clip_index == 1)
    video = video_folder / dataset.clips[number].video
    of_shards, of_video = (
        json.loads(call("explain", small_run, *source, "--out", tmp_path, "--json").out)
        for source in ((small_shards, "--clip", number), (video, "--clip", 1))
    )
    for part in ("spot", "attention", "firing_rates", "verdict"):
        assert of_video[part] == of_shards[part]
    assert of_shards["class"] == dataset[number].info.class_name
    assert of_video["class"] is None


def test_frame_and_place_choose_the_token(call, small_run: Path, small_shards: Path, tmp_path: Path):
    arguments = ("explain", small_run, small_shards, "--out", tmp_path, "--frame", "6", "--at", "20,9", "--json")
    told = json.loads(call(*arguments).out)
    assert told["frame"] == 6
    assert told["spot"] == {"group": 1, "step": 1, "row": 9, "column": 20}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--frame", "8"), "frame 8 is a key frame"),
        (("--frame", "16"), "frame 16 is not in the clip"),
        (("--at", "40,2"), "column is 40"),
        (("--clip", "999"), "no clip 999"),
    ],
)
def test_a_missing_clip_or_frame_is_named(
    call, small_run: Path, small_shards: Path, tmp_path: Path, arguments, complaint
):
    answer = call("explain", small_run, small_shards, "--out", tmp_path, *arguments)
    assert answer.code == 1
    assert complaint in answer.err


def test_a_malformed_pixel_is_wrong_usage(call, small_run: Path, small_shards: Path, tmp_path: Path):
    assert call("explain", small_run, small_shards, "--out", tmp_path, "--at", "left").code == 2


def test_a_broken_video_is_told_with_what_to_do(call, small_run: Path, tmp_path: Path):
    (tmp_path / "bad.mp4").write_text("no video")
    answer = call("explain", small_run, tmp_path / "bad.mp4", "--out", tmp_path)
    assert answer.code == 1
    assert answer.err.startswith(f"error: {tmp_path / 'bad.mp4'}: open: ")
    assert answer.err.splitlines()[1].startswith("hint: check that it is a whole video; ")


def test_without_fusion_an_old_attention_picture_is_removed(call, small_shards: Path, tmp_path: Path):
    run = write_run(tmp_path / "snn", small_shards, "snn")
    (tmp_path / "why").mkdir()
    (tmp_path / "why/attention.png").write_text("of an earlier network")
    answer = call("explain", run, small_shards, "--out", tmp_path / "why")
    assert "no attention to draw" in answer.out
    assert not (tmp_path / "why/attention.png").exists()
    assert (tmp_path / "why/rasters.png").is_file()
