"""Inspection of shards: the numbers are those of the index, pictures and pages are written on request."""

import json

import pytest
from respike.common.errors import ShardError
from respike.data import open_shards
from respike.workflows.inspection import choose_clips, inspect_shards


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
