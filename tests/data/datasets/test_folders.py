"""Promises of walking folders: links are followed once at most, names that are one are seen to be one."""

import pytest
from respike.common.errors import LayoutError
from respike.data.datasets.common import find_videos, fold, is_video, locate, scan

from tests.data.datasets.trees import touch


def names(root):
    return ["/".join((*folder.parts, name)) for folder in find_videos(root).folders for name in folder.videos]


def test_videos_are_found_in_a_fixed_order_and_hidden_ones_passed_by(tmp_path):
    touch(tmp_path, "b/2.MP4", "b/1.avi", "a/deep/er/3.webm", "0.mkv", "b/x.txt", "b/._1.avi", ".trash/9.mp4", "b/mp4")
    assert names(tmp_path) == ["0.mkv", "a/deep/er/3.webm", "b/1.avi", "b/2.MP4"]


def test_a_folder_named_as_a_video_is_a_folder(tmp_path):
    touch(tmp_path, "a.mp4/b.mp4")
    assert names(tmp_path) == ["a.mp4/b.mp4"]


def test_links_to_files_are_followed(tmp_path):
    touch(tmp_path, "out/1.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "2.mp4").symlink_to(tmp_path / "out" / "1.mp4")
    assert names(tmp_path / "root") == ["2.mp4"]


def test_a_link_to_a_folder_elsewhere_is_followed_once(tmp_path):
    touch(tmp_path, "root/a/1.mp4", "out/2.mp4", "out/in/3.mp4")
    for name, target in (("b", "out"), ("c", "out"), ("d", "out/in")):
        (tmp_path / "root" / name).symlink_to(tmp_path / target)
    assert names(tmp_path / "root") == ["a/1.mp4", "b/2.mp4", "b/in/3.mp4"]
    assert find_videos(tmp_path / "root").unfollowed == ("c", "d")


@pytest.mark.parametrize("target", [".", "root", "root/a", "root/a/deep", "root/b"])
def test_a_link_that_leads_back_is_not_followed(tmp_path, target):
    touch(tmp_path, "root/a/1.mp4", "root/b/2.mp4")
    (tmp_path / "root" / "a" / "deep").symlink_to(tmp_path / target)
    assert names(tmp_path / "root") == ["a/1.mp4", "b/2.mp4"]


def test_a_loop_through_a_folder_elsewhere_ends(tmp_path):
    touch(tmp_path, "root/1.mp4", "out/2.mp4")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "root")
    (tmp_path / "out" / "self").symlink_to(tmp_path / "out")
    assert names(tmp_path / "root") == ["1.mp4", "out/2.mp4"]


def test_a_sibling_whose_name_begins_alike_is_not_taken_for_the_root(tmp_path):
    touch(tmp_path, "root/1.mp4", "root2/2.mp4")
    (tmp_path / "root" / "more").symlink_to(tmp_path / "root2")
    assert names(tmp_path / "root") == ["1.mp4", "more/2.mp4"]


def test_names_are_one_whatever_their_case_and_spelling_of_accents():
    assert fold("Café.AVI") == fold("cafe\u0301.avi") == fold("caf\udce9.avi")
    assert fold("a.avi") != fold("b.avi")


def test_scan_of_an_absent_folder_is_empty_and_of_an_unreadable_one_an_error(tmp_path):
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert scan(tmp_path / "absent") == {}
    with pytest.raises(LayoutError, match="cannot read the folder"):
        scan(tmp_path / "self")


@pytest.mark.parametrize("name", ["x.mp4", "x.y.AVI", "-x.webm", " .mkv"])
def test_a_video_is_known_by_its_suffix(name):
    assert is_video(name)


@pytest.mark.parametrize("name", ["mp4", ".mp4", "._x.mp4", "x.mp4.part", "x", "x."])
def test_other_files_are_no_videos(name):
    assert not is_video(name)


def test_locate_finds_other_spellings_and_refuses_nothing(tmp_path):
    touch(tmp_path, "cafe\u0301.mp4")
    assert locate(tmp_path, "café.mp4").is_file()
    assert locate(tmp_path, "cafè.mp4") is None
    assert locate(tmp_path, "日本.mp4") is None
