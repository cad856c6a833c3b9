"""Class folder promises: a folder whose name is no class is told, with the class that it may be."""

import shutil

import pytest
from respike.common.errors import LayoutError
from respike.data.datasets.common import tell_misnamed

from tests.data.datasets.test_official import ANNOTATIONS, needs_lists
from tests.data.datasets.trees import listed, touch

CLASSES = ("brush_hair", "cartwheel", "kick", "kick_ball")


def lines(root, classes=CLASSES):
    return tell_misnamed("hmdb51", root, classes)


def test_a_misnamed_folder_is_told_with_the_class_that_lacks_one(tmp_path):
    touch(tmp_path, "brush_hairs/1.avi", "cartwheel/1.avi", "kick/1.avi", "kick_ball/1.avi")
    (line,) = lines(tmp_path)
    assert line == (
        f"the folder {tmp_path / 'brush_hairs'} is no class of hmdb51 and is left out: "
        "is it brush_hair, which has no folder? Then rename it"
    )


def test_a_class_that_has_a_folder_is_not_taken_for_a_misnamed_one(tmp_path):
    touch(tmp_path, "brush_hair/1.avi", "kick_balls/1.avi", "kick/1.avi", "kick_ball/1.avi", "cartwheel/1.avi")
    assert lines(tmp_path)[0].endswith("the nearest class, kick_ball, has a folder of its own")


def test_a_folder_unlike_every_class_is_told_without_a_guess(tmp_path):
    touch(tmp_path, "zzz/1.avi", "kick/1.avi")
    assert lines(tmp_path) == (f"the folder {tmp_path / 'zzz'} is no class of hmdb51 and is left out",)


def test_folders_without_videos_and_other_spellings_of_case_are_no_fault(tmp_path):
    touch(tmp_path, "annotations/list.txt", "Brush_Hair/1.avi", "KICK/1.avi", "readme.txt")
    assert lines(tmp_path) == ()


def test_of_many_strange_folders_some_are_named_and_the_others_counted(tmp_path):
    touch(tmp_path, *(f"zz{number}/1.avi" for number in range(7)))
    found = lines(tmp_path)
    assert len(found) == 6
    assert found[-1] == f"2 more folders under {tmp_path} are no classes and are left out"


def test_class_folders_a_level_too_deep_are_found(tmp_path):
    touch(tmp_path, "hmdb51_org/kick/1.avi", "hmdb51_org/cartwheel/1.avi")
    assert lines(tmp_path) == (
        f"{tmp_path / 'hmdb51_org'} holds class folders, which are looked for in {tmp_path}: move them there",
    )


def test_classes_that_are_still_packed_are_named(tmp_path):
    touch(tmp_path, "kick.rar", "cartwheel.RAR", "brush_hair.rar", "brush_hair/1.avi")
    assert lines(tmp_path) == (
        f"2 classes lie as archives that are still to unpack under {tmp_path}: cartwheel.rar, kick.rar",
    )


@needs_lists
@pytest.mark.parametrize(
    ("name", "class_name"),
    [("HandstandPushup", "HandStandPushups"), ("Hand Stand Pushups", "HandStandPushups"), ("YoYO_", "YoYo")],
)
def test_ucf101_names_the_nearest_official_class(tmp_path, name, class_name):
    shutil.copytree(ANNOTATIONS / "ucf101", tmp_path / "ucfTrainTestlist")
    touch(tmp_path, f"UCF-101/{name}/x.avi", "UCF-101/Archery/v_Archery_g01_c01.avi")
    told = [line for line in listed("ucf101", tmp_path).warnings if f"is it {class_name}, which has no folder" in line]
    assert len(told) == 1
    assert f"{tmp_path / 'UCF-101' / name} is no class of ucf101" in told[0]


@needs_lists
def test_hmdb51_names_the_nearest_official_class(tmp_path):
    shutil.copytree(ANNOTATIONS / "hmdb51", tmp_path / "testTrainMulti_7030_splits")
    touch(tmp_path, "hmdb51_org/brush_hairs/x.avi")
    with pytest.raises(LayoutError, match="is it brush_hair, which has no folder"):
        listed("hmdb51", tmp_path)


@needs_lists
def test_the_lists_own_spelling_of_handstand_is_the_class(tmp_path):
    shutil.copytree(ANNOTATIONS / "ucf101", tmp_path / "ucfTrainTestlist")
    touch(tmp_path, "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi")
    assert not [line for line in listed("ucf101", tmp_path).warnings if "is no class" in line]
