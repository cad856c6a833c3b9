"""Kinetics on small trees: flat and class folders, replacements, all forms of lists."""

import pytest
from respike.common.errors import DatasetError

from tests.data.datasets.trees import found, listed, touch

HEAD = "label,youtube_id,time_start,time_end,split\n"
TRAIN = HEAD + '"air drumming",-abc,3,13,train\nyoga,def,0,10,train\nyoga,gone,1,11,train\n'
VAL = "label,youtube_id,time_start,time_end,split,is_cc\r\nyoga,ghi,7,17,val,0\r\n\r\n"
ABC, DEF, GHI = "-abc_000003_000013.mp4", "def_000000_000010.mp4", "ghi_000007_000017.mp4"


@pytest.fixture
def kinetics(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "train.csv").write_text(TRAIN)
    (root / "val.csv").write_text(VAL, newline="")
    (root / "test.csv").write_text("youtube_id,time_start,time_end,split\nxyz,1,11,test\n")
    return root


@pytest.mark.parametrize("dataset", ["kinetics400", "kinetics600", "kinetics700"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"train/{ABC}", f"train/{DEF}"),
        (f"train/air drumming/{ABC}", f"train/yoga/{DEF}"),
        (f"train/air_drumming/{ABC}", f"train/yoga/{DEF}"),
        (f"videos_train/air_drumming/{ABC}", f"videos_train/yoga/{DEF}"),
        (f"all/{ABC}", f"all/{DEF}"),
    ],
)
def test_files_are_found_flat_and_in_class_folders(kinetics, dataset, first, second):
    touch(kinetics, first, second, f"val/{GHI}")
    listing = listed(dataset, kinetics)
    assert listing.classes == ("air drumming", "yoga")
    assert (listing.dataset, listing.evaluation_subset) == (dataset, "val")
    assert found(listing, kinetics) == {
        f"train/{ABC}": first,
        f"train/{DEF}": second,
        "train/gone_000001_000011.mp4": None,
        f"val/{GHI}": f"val/{GHI}",
    }


def test_unfinished_downloads_are_counted_and_named(kinetics):
    touch(kinetics, f"train/{ABC}", f"train/{DEF}.part", f"val/{GHI}", "notes.txt")
    warnings = listed("kinetics400", kinetics).warnings
    assert "files left out, since their suffixes are not those of videos: 1 (.part: 1)" in warnings


def test_a_replacement_wins_where_there_is_one(kinetics):
    better = f"replacement/replacement_for_corrupted_k400/{DEF}"
    touch(kinetics, f"train/{DEF}", f"train/{ABC}", better)
    places = found(listed("kinetics400", kinetics), kinetics)
    assert places[f"train/{DEF}"] == better
    assert places[f"train/{ABC}"] == f"train/{ABC}"


def test_a_test_list_counts_only_with_labels(kinetics):
    touch(kinetics, f"train/{DEF}", "test/xyz_000001_000011.mp4")
    subsets = {video.subset for video in listed("kinetics400", kinetics).videos}
    (kinetics / "test.csv").write_text(HEAD + "yoga,xyz,1,11,test\n")
    with_labels = {video.subset for video in listed("kinetics400", kinetics).videos}
    (kinetics / "test.csv").write_text(HEAD + ",xyz,1,11,test\n")
    blank = {video.subset for video in listed("kinetics400", kinetics).videos}
    assert (subsets, with_labels, blank) == ({"train", "val"}, {"train", "val", "test"}, {"train", "val"})


@pytest.mark.parametrize("names", [("annotations/train.csv", "annotations/val.csv"), ("train.csv", "validate.csv"),
                                   ("kinetics400_train.csv", "kinetics400_val.csv")])  # fmt: skip
def test_lists_are_found_under_the_names_in_use(kinetics, names):
    touch(kinetics, f"train/{DEF}")
    before = listed("kinetics400", kinetics)
    (kinetics / "annotations").mkdir()
    for old, new in zip(("train.csv", "val.csv"), names, strict=True):
        (kinetics / old).rename(kinetics / new)
    assert listed("kinetics400", kinetics) == before
    assert len(before.videos) == 4


def test_a_subset_on_another_disk_may_be_linked(kinetics, tmp_path):
    touch(tmp_path / "disk", DEF)
    (kinetics / "train").symlink_to(tmp_path / "disk")
    assert found(listed("kinetics400", kinetics), kinetics)[f"train/{DEF}"] == f"train/{DEF}"


def test_a_missing_val_list_gives_a_warning(kinetics):
    touch(kinetics, f"train/{DEF}")
    (kinetics / "val.csv").unlink()
    assert "there is no list of val" in listed("kinetics400", kinetics).warnings


@pytest.mark.parametrize("second", ["val", "train"])
def test_a_clip_listed_twice_is_named(kinetics, second):
    touch(kinetics, f"train/{DEF}")
    row = "yoga,def,0,10,train\n"
    path = kinetics / f"{second}.csv"
    path.write_text(path.read_text() + row)
    match = (
        "def_000000_000010.mp4 is listed in train and in val" if second == "val" else "def_.* and .*def_.* both listed"
    )
    with pytest.raises(DatasetError, match=match):
        listed("kinetics400", kinetics)


def test_a_clip_found_twice_is_an_error(kinetics):
    touch(kinetics, f"train/{DEF}", f"train/yoga/{DEF}")
    with pytest.raises(DatasetError, match=f"'train/{DEF}' and 'train/yoga/{DEF}'"):
        listed("kinetics400", kinetics)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (HEAD + "yoga,a,inf,10,train\n", "line 2 has no valid times"),
        (HEAD + "yoga,a\n", "line 2 has no valid times"),
        (HEAD + "yoga,a,0,10,train\n,b,0,10,train\n", "line 3 lacks a label"),
        ("youtube_id,time_start,time_end,split\na,0,10,train\n", "no column label"),
        (HEAD + "yoga,a\0,0,10,train\n", "zero bytes"),
        (HEAD + "air_drumming,a,0,10,train\nair drumming,b,0,10,train\n", "'air drumming' and 'air_drumming'"),
        (HEAD, "no column|no video is listed|none of the"),
    ],
)
def test_a_malformed_list_is_an_error_that_says_where(kinetics, text, match):
    (kinetics / "train.csv").write_text(text)
    with pytest.raises(DatasetError, match=match):
        listed("kinetics400", kinetics)


@pytest.fixture
def numbered(tmp_path):
    (tmp_path / "kinetics400_train_list_videos.txt").write_text(f"air drumming/{ABC} 0\nyoga/{DEF} 1\n")
    (tmp_path / "kinetics400_val_list_videos.txt").write_text(f"yoga/{GHI} 1\n")
    touch(tmp_path, f"train/air_drumming/{ABC}", f"train/yoga/{DEF}")
    return tmp_path


def test_lists_of_paths_and_numbers_are_read(numbered):
    listing = listed("kinetics400", numbered)
    assert listing.classes == ("air drumming", "yoga")
    assert [video.label for video in listing.videos] == [0, 1, 1]
    assert found(listing, numbered) == {
        f"train/air drumming/{ABC}": f"train/air_drumming/{ABC}",
        f"train/yoga/{DEF}": f"train/yoga/{DEF}",
        f"val/yoga/{GHI}": None,
    }


def test_a_replacement_wins_over_a_path_in_a_list(numbered):
    touch(numbered, f"replacement/{DEF}")
    assert found(listed("kinetics400", numbered), numbered)[f"train/yoga/{DEF}"] == f"replacement/{DEF}"


def test_numbered_file_names_are_found_by_their_folder(numbered):
    (numbered / "kinetics400_train_list_videos.txt").write_text("yoga/1.mp4 0\nswim/1.mp4 1\nrun/1.mp4 2\n")
    touch(numbered, "train/yoga/1.mp4", "train/swim/1.mp4")
    places = found(listed("kinetics400", numbered), numbered)
    assert (places["train/swim/1.mp4"], places["train/run/1.mp4"]) == ("train/swim/1.mp4", None)


@pytest.mark.parametrize("line", ["yoga/a.mp4", "yoga/a.mp4 400", "yoga/a.mp4 -1", "../a.mp4 1", "/etc/a.mp4 1"])
def test_a_malformed_line_of_a_numbered_list_is_named(numbered, line):
    (numbered / "kinetics400_train_list_videos.txt").write_text(line)
    with pytest.raises(DatasetError, match=r"kinetics400_train_list_videos\.txt holds"):
        listed("kinetics400", numbered)


def test_flat_numbered_lists_have_classes_by_number(numbered):
    (numbered / "kinetics400_train_list_videos.txt").write_text(f"{ABC} 0\n{DEF} 2\n")
    (numbered / "kinetics400_val_list_videos.txt").unlink()
    assert listed("kinetics400", numbered).classes == ("class 000", "class 001", "class 002")
