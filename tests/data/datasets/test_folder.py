"""folder and demo: class folders, subset folders, lists, and a seeded split where none is given."""

import json
import os

import pytest
from respike.common.errors import DatasetError

from tests.data.datasets.trees import found, ids, listed, touch


def list_file(root, text, name="list.csv"):
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_seeded_fifth_of_each_class_is_for_the_test(tmp_path):
    touch(tmp_path, *(f"{name}/deep/{number}.mp4" for name in ("a", "b") for number in range(10)), "lone/x.mkv")
    touch(tmp_path, "a/notes.txt")
    listing = listed("folder", tmp_path)
    assert len(listing.videos) == 21
    tests = [video.class_name for video in listing.videos if video.subset == "test"]
    assert (tests.count("a"), tests.count("b"), tests.count("lone")) == (2, 2, 0)
    assert listed("folder", tmp_path) == listing
    assert ids(listed("folder", tmp_path, seed=1), "test") != ids(listing, "test")
    assert listing.evaluation_subset == "test"


def test_the_seeded_split_ignores_the_order_of_a_list(tmp_path):
    rows = [f"{number}.mp4,a\n" for number in range(20)]
    touch(tmp_path, *(f"{number}.mp4" for number in range(20)))
    forwards = listed("folder", tmp_path, list_path=list_file(tmp_path, "".join(rows)))
    backwards = listed("folder", tmp_path, list_path=list_file(tmp_path, "".join(reversed(rows))))
    assert set(ids(forwards, "test")) == set(ids(backwards, "test"))
    assert len(ids(forwards, "test")) == 4


def test_subsets_are_taken_from_folders(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "Test/a/3.mp4", "notes/readme.txt")
    listing = listed("folder", tmp_path)
    assert listing.classes == ("a", "b")
    assert ids(listing, "test") == ["Test/a/3.mp4"]
    assert ids(listing, "train") == ["train/a/1.mp4", "train/b/2.mp4"]


def test_subset_folders_beside_others_are_an_error(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "test/a/2.mp4", "extra/3.mp4")
    with pytest.raises(DatasetError, match=r"subset folders \(test, train\) and others \(extra\)"):
        listed("folder", tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/1.mp4", "car/2.mp4")
    assert listed("folder", tmp_path).classes == ("car", "train")


def test_videos_outside_class_folders_give_a_warning(tmp_path):
    touch(tmp_path, "a/1.mp4", "loose.mp4")
    listing = listed("folder", tmp_path)
    assert ids(listing) == ["a/1.mp4"]
    assert listing.warnings == ("videos outside of class folders, skipped: 1 (loose.mp4)",)


@pytest.mark.parametrize("names", [["1.mp4"], ["train/1.mp4", "test/2.mp4"], ["a/notes.txt"]])
def test_a_root_without_class_folders_says_what_is_expected(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(DatasetError, match=str(tmp_path)) as error:
        listed("folder", tmp_path)
    assert "<class>/<video>" in error.value.hint


def test_files_that_are_no_videos_are_counted_and_named(tmp_path):
    touch(
        tmp_path, "a/1.mp4", "a/2.M2TS", "a/notes.txt", "a/deep/more.TXT", "b/3.gif", "b/x.part", "b/README", "list.csv"
    )
    listing = listed("folder", tmp_path)
    assert ids(listing) == ["a/1.mp4", "a/2.M2TS", "b/3.gif"]
    assert (
        "files left out, since their suffixes are not those of videos: 4 (.txt: 2, .part: 1, no suffix: 1)"
        in listing.warnings
    )


def test_a_root_of_unknown_files_names_their_suffixes(tmp_path):
    touch(tmp_path, "a/1.foo", "b/2.foo")
    with pytest.raises(DatasetError, match=r"no videos under .*: 2 \(\.foo: 2\)"):
        listed("folder", tmp_path)


def test_an_empty_class_folder_keeps_its_label(tmp_path):
    touch(tmp_path, "a/1.mp4", "c/2.mp4")
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    listing = listed("folder", tmp_path)
    assert [video.label for video in listing.videos] == [0, 2]
    assert listing.warnings == ("classes without a video on disk: 1 of 3 (b)",)


@pytest.mark.parametrize(
    ("names", "both"),
    [
        (("w/A.mp4", "w/a.mp4"), ("'w/A.mp4'", "'w/a.mp4'")),
        (("Wave/1.mp4", "wave/2.mp4"), ("'Wave'", "'wave'")),
        (("train/W/1.mp4", "val/w/2.mp4"), ("'W'", "'w'")),
        (("train/a/1.mp4", "Train/a/2.mp4"), ("'train'", "'Train'")),
    ],
)
def test_names_that_differ_in_case_only_are_an_error(tmp_path, names, both):
    touch(tmp_path, *names)
    with pytest.raises(DatasetError) as error:
        listed("folder", tmp_path)
    assert all(name in error.value.problem for name in both)


@pytest.mark.parametrize("form", ["csv", "csv without header", "csv in another order", "jsonl"])
def test_a_list_is_taken(tmp_path, form):
    rows = [("x y.mp4", "wave", "train"), ("sub/ü.mp4", "clap", "test"), ("a\nb, c.mp4", "clap", "train")]
    touch(tmp_path, *(path for path, _, _ in rows))
    if form == "jsonl":
        lines = [json.dumps({"path": path, "label": label, "subset": subset}) for path, label, subset in rows]
        path = list_file(tmp_path, "\ufeff" + "\r\n\r\n".join(lines), "list.jsonl")
    elif form == "csv in another order":
        path = list_file(tmp_path, "Label,Subset,path,seconds\n" + "\n".join(f'{b},{c},"{a}",3' for a, b, c in rows))
    else:
        head = "path,label,subset\r\n" if form == "csv" else ""
        path = list_file(tmp_path, head + "\r\n\r\n".join(f'"{a}", {b}, {c}' for a, b, c in rows))
    listing = listed("folder", tmp_path, list_path=path)
    assert [(v.video_id, v.class_name, v.subset) for v in listing.videos] == rows
    assert all(video.path.is_file() for video in listing.videos)
    assert listing.classes == ("clap", "wave")


def test_jsonl_names_may_hold_line_separators_and_spaces(tmp_path):
    names = ["a\u2028b.mp4", " lead.mp4"]
    touch(tmp_path, *names)
    lines = [json.dumps({"path": name, "label": 1}, ensure_ascii=False) for name in names]
    listing = listed("folder", tmp_path, list_path=list_file(tmp_path, "\n".join(lines), "list.jsonl"))
    assert ids(listing) == names
    assert all(video.path.is_file() for video in listing.videos)


def test_a_latin_1_list_lists_the_same_as_a_clean_one(tmp_path):
    touch(tmp_path, "café.mp4")
    clean = listed("folder", tmp_path, list_path=list_file(tmp_path, "path,label\ncafé.mp4,é\n"))
    other = listed("folder", tmp_path, list_path=list_file(tmp_path, "path,label\r\ncafé.mp4,é\r\n".encode("latin-1")))
    assert clean == other
    assert clean.videos[0].path.is_file()


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path):
    touch(tmp_path, "0.mp4")
    listing = listed("folder", tmp_path, list_path=list_file(tmp_path, "0.mp4,0\n10.mp4,10\n2.mp4,2\n"))
    assert listing.classes == ("0", "2", "10")


def test_missing_videos_stay_listed_without_a_path(tmp_path):
    touch(tmp_path, "a.mp4")
    rows = f"a.mp4,x\ngone.mp4,x\n{'n' * 300}.mp4,x\n"
    listing = listed("folder", tmp_path, list_path=list_file(tmp_path, rows))
    assert [video.path is None for video in listing.videos] == [False, True, True]


def test_a_list_without_any_video_on_disk_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=f"none of the 2 listed videos is under {tmp_path}"):
        listed("folder", tmp_path, list_path=list_file(tmp_path, "a.mp4,x\nb.mp4,x\n"))


@pytest.mark.parametrize("name", ["../x.mp4", "/etc/x.mp4", "a/../../x.mp4", "."])
def test_a_list_cannot_lead_out_of_the_root(tmp_path, name):
    with pytest.raises(DatasetError, match="leads out of"):
        listed("folder", tmp_path, list_path=list_file(tmp_path, f"path,label\n{name},a\n"))


def test_an_absolute_path_under_the_root_is_taken(tmp_path):
    touch(tmp_path, "a.mp4")
    assert ids(listed("folder", tmp_path, list_path=list_file(tmp_path, f"{tmp_path}/a.mp4,x\n"))) == ["a.mp4"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("video,label\na.mp4,x\n", "the header 'video,label' has no columns path and label"),
        ("a.mp4,x\nb, c.mp4,x,train,\n", "line 2 has 4 cells|line 2 has 5 cells"),
        ("a.mp4,x\n\nb.mp4\n", "line 3 lacks a path or a label"),
        ("a.mp4,x,exam\n", "subset is 'exam'"),
        ("a.mp4,x,train\nb.mp4,x\n", "a subset is given for 1 of 2 videos"),
        ("a.mp4,x,train\n./a.mp4,x,test\n", r"'a.mp4' \(train\) and 'a.mp4' \(test\)"),
        ("a.mp4,Wave\nb.mp4,wave\n", "'Wave' and 'wave'"),
        ("", "no video is listed"),
        (b"\xff\xfea\0", "zero bytes"),
        ("a" * 200_000 + ",x\n", "is not CSV"),
    ],
)
def test_a_malformed_csv_list_is_an_error_with_the_place(tmp_path, text, match):
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(DatasetError, match=match):
        listed("folder", tmp_path, list_path=list_file(tmp_path, text))


@pytest.mark.parametrize("cell", ["x" * 300, "x/" * 3000, "x" * 300 + ".mp4"])
def test_a_very_long_first_cell_is_one_line_of_error(tmp_path, cell):
    touch(tmp_path, "a.mp4")
    with pytest.raises(DatasetError) as error:
        listed("folder", tmp_path, list_path=list_file(tmp_path, f"{cell},wave\n"))
    assert "\n" not in str(error.value)
    if "." not in cell:
        assert "has no columns path and label" in error.value.problem
        assert len(str(error.value)) < 400


def test_a_root_with_a_name_too_long_is_missing(tmp_path):
    with pytest.raises(DatasetError, match="there is no folder"):
        listed("folder", tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"path": "a.mp4", "label": "x"}\n{"path"\n', "line 2 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('["a.mp4", "x"]', "line 1 is not a JSON object"),
        ('{"path": ["a.mp4"], "label": "x"}', "path is .*not a text"),
        ('{"path": "a.mp4"}', "lacks a path or a label"),
        ('{"path": "a\\u0000.mp4", "label": "x"}', "cannot be a file name"),
        ('{"path": "a\\ud800.mp4", "label": "x"}', "cannot be a file name"),
    ],
)
def test_a_malformed_jsonl_list_is_an_error_with_the_place(tmp_path, text, match):
    touch(tmp_path, "a.mp4")
    with pytest.raises(DatasetError, match=match):
        listed("folder", tmp_path, list_path=list_file(tmp_path, text, "list.jsonl"))


def test_pipes_are_listed_and_broken_links_are_missing(tmp_path):
    touch(tmp_path, "a/1.mp4")
    os.mkfifo(tmp_path / "a" / "pipe.mp4")
    (tmp_path / "a" / "gone.mp4").symlink_to("/nowhere/at/all")
    (tmp_path / "a" / "self.mp4").symlink_to(tmp_path / "a" / "self.mp4")
    assert found(listed("folder", tmp_path), tmp_path) == {
        "a/1.mp4": "a/1.mp4",
        "a/gone.mp4": None,
        "a/pipe.mp4": "a/pipe.mp4",
        "a/self.mp4": None,
    }


def test_a_link_back_into_the_root_makes_no_class(tmp_path):
    touch(tmp_path, "wave/1.mp4", "jump/2.mp4")
    (tmp_path / "loop").symlink_to(tmp_path)
    listing = listed("folder", tmp_path)
    assert listing.classes == ("jump", "wave")
    assert "loop" in listing.warnings[0]


def test_names_that_are_not_utf_8_get_a_writable_id(tmp_path):
    touch(tmp_path, "a/1.mp4")
    touch(tmp_path, os.fsdecode(b"a/caf\xe9.mp4"))
    video = listed("folder", tmp_path).videos[1]
    assert video.video_id.encode() == "a/café.mp4".encode()
    assert video.path.read_bytes() == b"v"


def test_the_demo_is_a_folder_of_its_own_name(tmp_path):
    touch(tmp_path, "train/ring-left/00.mp4", "test/ring-left/00.mp4")
    listing = listed("demo", tmp_path)
    assert (listing.dataset, listing.evaluation_subset, listing.classes) == ("demo", "test", ("ring-left",))
    assert ids(listing, "test") == ["test/ring-left/00.mp4"]


def test_a_label_with_a_lone_surrogate_is_refused(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    text = '{"path": "a.mp4", "label": "a"}\n{"path": "b.mp4", "label": "\\ud800"}\n'
    with pytest.raises(DatasetError, match=r"line 2: the label '\\ud800' is not valid text"):
        listed("folder", tmp_path, list_path=list_file(tmp_path, text, "list.jsonl"))


def test_a_root_that_is_too_high_gives_a_warning(tmp_path):
    touch(tmp_path, "UCF-101/Archery/1.avi", "UCF-101/Archery/2.avi", "UCF-101/Biking/3.avi", "lists/a.txt")
    warnings = listed("folder", tmp_path).warnings
    assert (
        f"{tmp_path} has one class, UCF-101, and all its videos are in folders inside it (Archery, Biking); "
        f"if these are the classes, use the root {tmp_path / 'UCF-101'}"
    ) in warnings


def test_videos_deeper_than_their_class_give_a_warning(tmp_path):
    touch(tmp_path, "wave/day one/1.mp4", "wave/2.mp4", "clap/3.mp4")
    assert (
        "videos in folders inside a class folder: 1 (such as wave/day one/1.mp4, of class wave)"
        in listed("folder", tmp_path).warnings
    )


def test_subset_folders_are_not_nested_folders(tmp_path):
    touch(tmp_path, "train/wave/1.mp4", "test/wave/2.mp4")
    assert listed("folder", tmp_path).warnings == ()
    touch(tmp_path, "train/wave/deep/3.mp4")
    assert len(listed("folder", tmp_path).warnings) == 1
