"""HMDB51 on small trees: codes, odd names, the same labels in every split."""

import os

import pytest
from respike.common.errors import DatasetError

from tests.data.datasets.trees import found, ids, listed, touch

ODD = "(1) a - b__#[x]&+;~@! test_u_cm_np1_ba_med_0.avi"


@pytest.fixture
def hmdb(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    (lists / "wave_test_split1.txt").write_text(f"{ODD} 1 \nb.avi 2 \nc.avi 0 \n")
    (lists / "clap_test_split1.txt").write_text("d.avi 1 \r\n\r\n", newline="")
    touch(tmp_path, f"wave/{ODD}", "wave/b.avi", "wave/c.avi", "clap/d.avi")
    return tmp_path


def test_codes_decide_the_subset_and_names_may_be_odd(hmdb):
    listing = listed("hmdb51", hmdb)
    assert listing.classes == ("clap", "wave")
    assert ids(listing, "train") == ["clap/d.avi", f"wave/{ODD}"]
    assert ids(listing, "test") == ["wave/b.avi"]
    assert all(video.path.is_file() for video in listing.videos)
    assert listing.evaluation_subset == "test"


def test_a_group_is_the_source_film_of_a_class(hmdb):
    names = {
        "BATMAN_BEGINS_shake_hands_u_cm_np2_le_med_3.avi": "shake_hands/BATMAN_BEGINS",
        "BATMAN_BEGINS_shake_hands_f_nm_np1_fr_goo_12.avi": "shake_hands/BATMAN_BEGINS",
        # a title that holds the class
        "How_to_shake_hands_well_shake_hands_u_cm_np1_ba_bad_0.avi": "shake_hands/How_to_shake_hands_well",
        "a__b_(2)_shake_hands_u_cm_np1_ba_bad_0.avi": "shake_hands/a__b_(2)",
        # names of another form have no group
        "mine.avi": None,
        "_shake_hands_u_cm_np1_ba_bad_0.avi": None,
    }
    path = hmdb / "testTrainMulti_7030_splits" / "shake_hands_test_split1.txt"
    path.write_text("".join(f"{name} 1 \n" for name in names))
    groups = {video.video_id: video.group for video in listed("hmdb51", hmdb).videos}
    assert {name: groups[f"shake_hands/{name}"] for name in names} == names


def test_a_class_without_a_list_of_the_split_is_an_error(hmdb):
    (hmdb / "testTrainMulti_7030_splits" / "wave_test_split2.txt").write_text("b.avi 1 \n")
    with pytest.raises(DatasetError, match=r"no .*clap_test_split2\.txt"):
        listed("hmdb51", hmdb, split=2)


def test_a_line_without_a_code_is_named(hmdb):
    (hmdb / "testTrainMulti_7030_splits" / "clap_test_split1.txt").write_text("d.avi 3 \n")
    with pytest.raises(DatasetError, match=r"clap_test_split1.txt holds 'd.avi 3'"):
        listed("hmdb51", hmdb)


@pytest.mark.parametrize("place", ["hmdb51", "hmdb51_org", "videos"])
def test_class_folders_may_stand_one_folder_down(hmdb, place):
    (hmdb / place).mkdir()
    for name in ("wave", "clap"):
        (hmdb / name).rename(hmdb / place / name)
    assert found(listed("hmdb51", hmdb), hmdb)["clap/d.avi"] == f"{place}/clap/d.avi"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig"])
@pytest.mark.parametrize("on_disk", ["café.avi".encode(), "café.avi".encode("latin-1"), "cafe\u0301.avi".encode()])
def test_accents_match_however_list_and_disk_spell_them(hmdb, encoding, on_disk):
    (hmdb / "testTrainMulti_7030_splits" / "clap_test_split1.txt").write_bytes("café.avi 1 \n".encode(encoding))
    touch(hmdb, f"clap/{os.fsdecode(on_disk)}")
    video = listed("hmdb51", hmdb).videos[0]
    assert video.video_id == "clap/café.avi"
    assert video.path.is_file()


def test_hidden_files_beside_the_lists_are_ignored(hmdb):
    (hmdb / "testTrainMulti_7030_splits" / "._wave_test_split1.txt").write_bytes(b"\0\5\x16\7")
    assert listed("hmdb51", hmdb).classes == ("clap", "wave")


def test_a_missing_class_folder_keeps_the_label(hmdb):
    (hmdb / "clap" / "d.avi").unlink()
    (hmdb / "clap").rmdir()
    listing = listed("hmdb51", hmdb)
    assert "classes without a video on disk: 1 of 2 (clap)" in listing.warnings
    assert {video.class_name: video.label for video in listing.videos} == {"clap": 0, "wave": 1}
