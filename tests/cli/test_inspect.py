"""Inspection of shards: the numbers are those of the index, pictures and pages are written on request."""

import json

import pytest
from respike.common.errors import ShardError
from respike.data import open_shards
from respike.data.video_writer import write_video
from respike.workflows.inspection import choose_clips, inspect_shards

from tests.conftest import moving_square


def test_the_command_prints_what_the_function_returns(call, small_shards):
    facts = inspect_shards(small_shards)
    assert json.loads(call("inspect", small_shards, "--json").out) == facts
    assert facts["videos"] == {"listed": 12, "written": 12, "skipped": 0}
    assert sum(subset["clips"] for subset in facts["subsets"].values()) == facts["num_clips"]
    assert sum(facts["clips_by_class"].values()) == facts["num_clips"]
    assert facts["bytes_per_clip"] == pytest.approx(facts["num_bytes"] / facts["num_clips"], abs=1)
    # the rest is tar headers and padding
    assert 0 < sum(facts["sizes"].values()) < facts["bytes_per_clip"]


def test_the_printed_facts_name_sizes_and_subsets(call, small_shards):
    answer = call("inspect", small_shards)
    assert "12 written, 0 skipped of 12" in answer.out
    assert [line.split()[0] for line in answer.out.splitlines()[-3:-1]] == ["test", "train"]


@pytest.mark.parametrize(("option", "words"), [([], "stored as coded"), (["--square-pixels"], "scaled to square ones")])
def test_pixels_that_are_not_square_are_told(call, tmp_path, option, words):
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "a").mkdir(parents=True)
    for name, filters in (("wide.mp4", "setsar=64/45"), ("square.mp4", "setsar=1")):
        write_video(root / "a" / name, iter(moving_square(16)), options={"vf": filters})
    call("prepare", "folder", "--root", root, "--out", out, "--quiet", *option)
    assert inspect_shards(out)["sample_aspect_ratios"] == {"64:45": 1, "1:1": 1}
    assert f"not square in 1 video of 64:45; {words}" in call("inspect", out).out


def test_picture_and_page_are_written_and_hold_the_clips(small_shards, tmp_path):
    inspect_shards(small_shards, png=tmp_path / "sheet.png", html=tmp_path / "page.html")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "wave" in page


def test_the_chosen_clips_are_of_different_classes(small_shards):
    dataset = open_shards(small_shards)
    assert {dataset.clips[number].label for number in choose_clips(dataset, 6)} == {0, 1}
    assert len(choose_clips(dataset, 1)) == 1


def test_shards_that_do_not_exist_are_an_error(tmp_path):
    with pytest.raises(ShardError):
        inspect_shards(tmp_path / "nowhere")
