"""Common dataset code: walking folders, comparing names, warnings about class folders."""

import shutil

import pytest
from respike.common.errors import DatasetError
from respike.data.datasets.common import (
    class_folder_warnings,
    find_path,
    find_videos,
    index_names,
    is_video,
    normalize_name,
    to_text,
)

from tests.data.datasets.test_official import ANNOTATIONS, needs_lists
from tests.data.datasets.trees import listed, touch

CLASSES = ("brush_hair", "cartwheel", "kick", "kick_ball")


def names(root):
    return ["/".join((*folder.parts, name)) for folder in find_videos(root).folders for name in folder.videos]


def test_videos_are_found_in_fixed_order_without_hidden_ones(tmp_path):
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
    assert find_videos(tmp_path / "root").skipped_links == ("c", "d")


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


def test_a_sibling_with_the_same_prefix_is_not_the_root(tmp_path):
    touch(tmp_path, "root/1.mp4", "root2/2.mp4")
    (tmp_path / "root" / "more").symlink_to(tmp_path / "root2")
    assert names(tmp_path / "root") == ["1.mp4", "more/2.mp4"]


def test_names_ignore_case_and_spelling_of_accents():
    assert normalize_name("Café.AVI") == normalize_name("cafe\u0301.avi") == normalize_name(to_text("caf\udce9.avi"))
    assert normalize_name("a.avi") != normalize_name("b.avi")


def test_a_missing_folder_has_no_names_an_unreadable_one_fails(tmp_path):
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert index_names(tmp_path / "absent") == {}
    with pytest.raises(DatasetError, match="cannot read the folder"):
        index_names(tmp_path / "self")


@pytest.mark.parametrize("name", ["x.mp4", "x.y.AVI", "-x.webm", " .mkv"])
def test_a_video_is_known_by_its_suffix(name):
    assert is_video(name)


@pytest.mark.parametrize("name", ["mp4", ".mp4", "._x.mp4", "x.mp4.part", "x", "x."])
def test_other_files_are_no_videos(name):
    assert not is_video(name)


def test_paths_are_found_in_other_spellings(tmp_path):
    touch(tmp_path, "cafe\u0301.mp4")
    assert find_path(tmp_path, "café.mp4").is_file()
    assert find_path(tmp_path, "cafè.mp4") is None
    assert find_path(tmp_path, "日本.mp4") is None


def warnings(root, classes=CLASSES):
    return class_folder_warnings("hmdb51", root, classes)


def test_a_misnamed_folder_gets_the_class_without_a_folder(tmp_path):
    touch(tmp_path, "brush_hairs/1.avi", "cartwheel/1.avi", "kick/1.avi", "kick_ball/1.avi")
    (line,) = warnings(tmp_path)
    assert line == (
        f"the folder {tmp_path / 'brush_hairs'} is not a class of hmdb51 and is skipped: "
        "is it brush_hair, which has no folder? Then rename it"
    )


def test_a_class_with_a_folder_is_not_suggested(tmp_path):
    touch(tmp_path, "brush_hair/1.avi", "kick_balls/1.avi", "kick/1.avi", "kick_ball/1.avi", "cartwheel/1.avi")
    assert warnings(tmp_path)[0].endswith("the nearest class, kick_ball, has a folder already")


def test_a_folder_unlike_every_class_gets_no_suggestion(tmp_path):
    touch(tmp_path, "zzz/1.avi", "kick/1.avi")
    assert warnings(tmp_path) == (f"the folder {tmp_path / 'zzz'} is not a class of hmdb51 and is skipped",)


def test_other_case_and_folders_without_videos_are_accepted(tmp_path):
    touch(tmp_path, "annotations/list.txt", "Brush_Hair/1.avi", "KICK/1.avi", "readme.txt")
    assert warnings(tmp_path) == ()


def test_of_many_unknown_folders_five_are_named(tmp_path):
    touch(tmp_path, *(f"zz{number}/1.avi" for number in range(7)))
    found = warnings(tmp_path)
    assert len(found) == 6
    assert found[-1] == f"more folders under {tmp_path} that are not a class and are skipped: 2"


def test_class_folders_a_level_too_deep_are_found(tmp_path):
    touch(tmp_path, "hmdb51_org/kick/1.avi", "hmdb51_org/cartwheel/1.avi")
    assert warnings(tmp_path) == (
        f"{tmp_path / 'hmdb51_org'} holds class folders, which are looked for in {tmp_path}: move them there",
    )


def test_classes_that_are_still_packed_are_named(tmp_path):
    touch(tmp_path, "kick.rar", "cartwheel.RAR", "brush_hair.rar", "brush_hair/1.avi")
    assert warnings(tmp_path) == (f"classes still packed under {tmp_path}: 2 (cartwheel.rar, kick.rar); unpack them",)


@needs_lists
@pytest.mark.parametrize(
    ("name", "class_name"),
    [("HandstandPushup", "HandStandPushups"), ("Hand Stand Pushups", "HandStandPushups"), ("YoYO_", "YoYo")],
)
def test_ucf101_names_the_nearest_official_class(tmp_path, name, class_name):
    shutil.copytree(ANNOTATIONS / "ucf101", tmp_path / "ucfTrainTestlist")
    touch(tmp_path, f"UCF-101/{name}/x.avi", "UCF-101/Archery/v_Archery_g01_c01.avi")
    near = [line for line in listed("ucf101", tmp_path).warnings if f"is it {class_name}, which has no folder" in line]
    assert len(near) == 1
    assert f"{tmp_path / 'UCF-101' / name} is not a class of ucf101" in near[0]


@needs_lists
def test_hmdb51_names_the_nearest_official_class(tmp_path):
    shutil.copytree(ANNOTATIONS / "hmdb51", tmp_path / "testTrainMulti_7030_splits")
    touch(tmp_path, "hmdb51_org/brush_hairs/x.avi")
    with pytest.raises(DatasetError, match="is it brush_hair, which has no folder"):
        listed("hmdb51", tmp_path)


@needs_lists
def test_the_folder_spelling_of_handstand_is_accepted(tmp_path):
    shutil.copytree(ANNOTATIONS / "ucf101", tmp_path / "ucfTrainTestlist")
    touch(tmp_path, "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi")
    assert not [line for line in listed("ucf101", tmp_path).warnings if "is not a class" in line]
