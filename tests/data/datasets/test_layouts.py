"""Promises of every layout: what is missing gets one line that says what, where and how to get it."""

import subprocess
import sys

import pytest
from respike.common.errors import LayoutError, RespikeError, SettingError
from respike.data.datasets import DATASETS, ListingRequest

from tests.data.datasets.trees import listed, touch

NAMES = ["ucf101", "hmdb51", "kinetics400", "kinetics600", "kinetics700", "folder", "demo"]
PAGES = {
    "ucf101": "crcv.ucf.edu",
    "hmdb51": "serre-lab.clps.brown.edu",
    "kinetics400": "cvdfoundation/kinetics-dataset",
}


def test_every_data_set_is_there_under_its_name():
    assert DATASETS.names() == NAMES
    assert [DATASETS.get(name).name for name in NAMES] == NAMES
    assert [DATASETS.get(name).splits for name in NAMES] == [(1, 2, 3)] * 2 + [()] * 5
    assert [DATASETS.get(name).default_sampling for name in NAMES] == ["dense"] * 2 + ["uniform"] * 3 + ["dense"] * 2


@pytest.mark.parametrize("dataset", NAMES)
@pytest.mark.parametrize("kind", ["absent", "a file"])
def test_a_missing_root_says_where_and_what_next_in_one_line(tmp_path, dataset, kind):
    root = tmp_path / "nowhere"
    if kind == "a file":
        root.write_text("")
    with pytest.raises(LayoutError, match="there is no folder") as error:
        listed(dataset, root)
    assert error.value.problem.startswith(f"there is no folder {root} to look for ")
    assert error.value.hint
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dataset", PAGES)
def test_missing_lists_say_where_they_were_looked_for_and_where_to_get_them(tmp_path, dataset):
    with pytest.raises(LayoutError, match=str(tmp_path)) as error:
        listed(dataset, tmp_path)
    assert PAGES[dataset] in error.value.hint


def test_lists_without_any_video_on_disk_say_where_to_get_the_videos(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\nyoga,a,0,10\n")
    with pytest.raises(LayoutError, match=r"none of the 1 listed videos is under .*; the first is ") as error:
        listed("kinetics400", tmp_path)
    assert "https://" in error.value.hint


@pytest.mark.parametrize(("dataset", "split"), [("ucf101", 4), ("ucf101", 0), ("hmdb51", 4), ("kinetics400", 1),
                                                ("folder", 1), ("demo", 1)])  # fmt: skip
def test_a_split_that_does_not_exist_is_an_error_that_names_it(tmp_path, dataset, split):
    touch(tmp_path, "train/a/1.mp4")
    with pytest.raises(SettingError, match=f"split {split} of {dataset} does not exist"):
        listed(dataset, tmp_path, split=split)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(SettingError, match="seed is -1"):
        ListingRequest(root=tmp_path, seed=-1)


def test_an_unknown_data_set_names_the_choices():
    with pytest.raises(RespikeError, match="did you mean 'ucf101'"):
        DATASETS.get("ucf-101")


def test_listing_loads_neither_torch_nor_a_video_library():
    code = "import sys, respike.data.datasets; print(sorted({'torch', 'cv2', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
