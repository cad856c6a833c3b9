"""UCF101 on small trees: the official lists decide, case and line ends do not matter."""

import shutil

import pytest
from respike.common.errors import DatasetError

from tests.data.datasets.trees import found, ids, listed, touch

TRAIN = "HammerThrow/v_HammerThrow_g01_c01.avi 1\r\n\r\nHammering/v_hammering_g01_c01.avi 2\r\n"
TEST = "\ufeffHammering/v_hammering_g02_c01.avi 2\n"


@pytest.fixture
def ucf(tmp_path):
    root = tmp_path / "root"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_bytes(b"1 HammerThrow\r\n2 Hammering\r\n")
    (lists / "trainlist01.txt").write_bytes(TRAIN.encode())
    (lists / "testlist01.txt").write_bytes(TEST.encode())
    touch(root, "UCF-101/hammerthrow/V_HammerThrow_g01_c01.AVI")
    return root


def write(ucf, name, text):
    (ucf / "ucfTrainTestlist" / name).write_text(text, newline="")


def test_names_ignore_case_and_lists_may_be_untidy(ucf):
    listing = listed("ucf101", ucf)
    train, other, test = listing.videos
    assert (train.video_id, train.label, train.group) == ("HammerThrow/v_HammerThrow_g01_c01.avi", 0, "HammerThrow/g01")
    assert train.path.name == "V_HammerThrow_g01_c01.AVI"
    assert other.group == "Hammering/g01"
    assert (test.label, test.path, test.subset) == (1, None, "test")
    assert listing.evaluation_subset == "test"


def test_the_class_comes_from_the_list_not_the_file_name(ucf):
    write(ucf, "classInd.txt", "1 HammerThrow\n2 Hammering\n3 HandstandPushups\n")
    write(ucf, "testlist01.txt", "HandStandPushups/v_HammerThrow_g02_c01.avi\n")
    touch(ucf, "UCF-101/HandstandPushups/v_HammerThrow_g02_c01.avi")
    test = listed("ucf101", ucf).videos[-1]
    assert (test.class_name, test.label) == ("HandstandPushups", 2)
    assert test.path.is_file()


def test_a_clean_list_and_an_untidy_one_list_the_same(ucf):
    untidy = listed("ucf101", ucf)
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        text = (ucf / "ucfTrainTestlist" / name).read_text(encoding="utf-8-sig")
        write(ucf, name, "\n".join(line for line in text.splitlines() if line.strip()))
    assert listed("ucf101", ucf) == untidy


@pytest.mark.parametrize("place", ["UCF-101", "UCF101", "videos", "."])
def test_videos_are_found_in_every_usual_place(ucf, place):
    (ucf / "UCF-101" / "hammerthrow").rename(ucf / "kept")
    (ucf / "UCF-101").rmdir()
    (ucf / place).mkdir(exist_ok=True)
    (ucf / "kept").rename(ucf / place / "HammerThrow")
    assert listed("ucf101", ucf).videos[0].path.is_file()


@pytest.mark.parametrize("place", ["../ucfTrainTestlist", "annotations"])
def test_lists_may_lie_beside_the_root_or_in_annotations(ucf, place):
    before = listed("ucf101", ucf)
    shutil.move(ucf / "ucfTrainTestlist", ucf / place)
    assert listed("ucf101", ucf) == before


def test_classes_without_a_video_keep_their_labels(ucf):
    listing = listed("ucf101", ucf)
    assert "classes without a video on disk: 1 of 2 (Hammering)" in listing.warnings
    assert listing.classes == ("HammerThrow", "Hammering")
    assert "the lists hold 2 classes, ucf101 has 101" in listing.warnings


def test_a_wrong_label_number_gives_a_warning_only(ucf):
    write(ucf, "trainlist01.txt", "HammerThrow/v_HammerThrow_g01_c01.avi 2\n")
    listing = listed("ucf101", ucf)
    assert listing.videos[0].label == 0
    assert any(warning.startswith("lines whose number is not that of classInd.txt: 1") for warning in listing.warnings)


def test_files_that_differ_in_case_only_are_named(ucf):
    touch(ucf, "UCF-101/hammerthrow/v_hammerthrow_g01_c01.avi")
    with pytest.raises(DatasetError, match=r"'V_HammerThrow_g01_c01.AVI' and 'v_hammerthrow_g01_c01.avi'"):
        listed("ucf101", ucf)


def test_class_folders_that_differ_in_case_only_are_named(ucf):
    touch(ucf, "UCF-101/HammerThrow/v_HammerThrow_g01_c02.avi")
    with pytest.raises(DatasetError, match="'HammerThrow' and 'hammerthrow'"):
        listed("ucf101", ucf)


def test_a_video_in_train_and_test_is_named_with_both(ucf):
    write(ucf, "testlist01.txt", "hammerthrow/v_hammerthrow_g01_c01.avi\n")
    with pytest.raises(DatasetError, match=r"'HammerThrow/v_HammerThrow.* \(train\) and .*v_hammerthrow.* \(test\)"):
        listed("ucf101", ucf)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("classInd.txt", "1 HammerThrow\nfoo\n", "'foo', not a number and a class"),
        ("classInd.txt", "1 HammerThrow\n1 Archery\n2 Hammering\n", "each once"),
        ("classInd.txt", "1 HammerThrow\n3 Hammering\n", "without a gap"),
        ("classInd.txt", "", "run from 1"),
        ("classInd.txt", "1 HammerThrow\n2 hammerthrow\n", "'HammerThrow' and 'hammerthrow'"),
        ("trainlist01.txt", "v_HammerThrow_g01_c01.avi 1\n", "not <Class>/<video>"),
        ("trainlist01.txt", "Archery/v_Archery_g01_c01.avi 1\n", "no class 'Archery'"),
        ("testlist01.txt", "\n\n", "testlist01.txt of UCF101 is empty"),
    ],
)
def test_a_malformed_list_is_an_error_with_file_and_fault(ucf, name, text, match):
    write(ucf, name, text)
    with pytest.raises(DatasetError, match=match) as error:
        listed("ucf101", ucf)
    assert "classInd" in error.value.problem or name in error.value.problem or "classes" in error.value.problem


@pytest.mark.parametrize("name", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
def test_a_missing_list_is_named_with_the_page_that_has_it(ucf, name):
    (ucf / "ucfTrainTestlist" / name).unlink()
    with pytest.raises(DatasetError, match=f"there is no .*{name}") as error:
        listed("ucf101", ucf)
    assert "https://www.crcv.ucf.edu" in error.value.hint


def test_a_class_folder_linked_to_itself_is_an_error(ucf):
    (ucf / "UCF-101" / "Hammering").symlink_to(ucf / "UCF-101" / "Hammering")
    with pytest.raises(DatasetError, match=r"cannot read the folder .*Hammering"):
        listed("ucf101", ucf)


def test_a_class_folder_on_another_disk_may_be_linked(ucf, tmp_path):
    touch(tmp_path / "disk", "v_Hammering_g01_c01.avi")
    (ucf / "UCF-101" / "Hammering").symlink_to(tmp_path / "disk")
    assert found(listed("ucf101", ucf), ucf)["Hammering/v_hammering_g01_c01.avi"] == (
        "UCF-101/Hammering/v_Hammering_g01_c01.avi"
    )


def test_files_that_no_list_names_are_not_listed(ucf):
    touch(ucf, "UCF-101/hammerthrow/v_HammerThrow_g09_c01.avi")
    assert len(ids(listed("ucf101", ucf))) == 3
