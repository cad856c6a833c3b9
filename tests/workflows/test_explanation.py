"""Explanation from Python: one clip in numbers, its pictures in a folder, and refusals."""

from pathlib import Path

import pytest
from respike import explain, open_shards
from respike.common.errors import RespikeError, SettingError


def test_a_clip_is_explained_and_saved(small_run: Path, small_shards: Path, tmp_path: Path) -> None:
    explanation = explain(small_run, small_shards, clip=3, device="cpu")
    info = open_shards(small_shards)[3].info
    numbers = explanation.to_json(top=1)
    assert (numbers["video"], numbers["clip"], numbers["class"]) == (info.video, info.clip_index, info.class_name)
    assert [len(scale["top"]) for scale in numbers["attention"]] == [1, 1]
    assert numbers["predictions"][0]["class_name"] == explanation.guesses[0].class_name
    pictures = explanation.save(tmp_path / "why")
    assert sorted(path.name for path in pictures) == ["attention.png", "evidence.png", "rasters.png", "rates.png"]
    assert {"explanation.json", "arrays.npz"} <= {path.name for path in (tmp_path / "why").iterdir()}


def test_frame_and_pixel_choose_the_spot(small_run: Path, small_shards: Path) -> None:
    spot = explain(small_run, small_shards, frame=6, at=(20, 9)).explanation.spot
    assert (spot.group, spot.step, spot.row, spot.column) == (1, 1, 9, 20)


@pytest.mark.parametrize("frame", [-1, 8, 16])
def test_a_frame_without_residual_is_refused(frame: int, small_run: Path, small_shards: Path) -> None:
    with pytest.raises(SettingError, match=f"frame {frame} is ") as caught:
        explain(small_run, small_shards, frame=frame)
    assert caught.value.setting == "frame"


def test_a_missing_clip_or_video_is_named(small_run: Path, small_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match="has no clip 999"):
        explain(small_run, small_shards, clip=999)
    with pytest.raises(RespikeError, match=r"none\.mp4: missing"):
        explain(small_run, tmp_path / "none.mp4")
