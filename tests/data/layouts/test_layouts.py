"""Layout promises on small trees: oddities of real disks, and one clear line for what is missing."""

import json

import pytest
from respike.data.layouts import LAYOUTS, ListingRequest
from respike.errors import LayoutError, RespikeError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"v")


def listed(dataset, root, **request):
    return LAYOUTS.get(dataset).list_videos(ListingRequest(root=root, **request))


def ids(listing, subset=None):
    return [video.video_id for video in listing.videos if subset in (None, video.subset)]


@pytest.fixture
def ucf(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 HammerThrow\r\n2 Hammering\r\n")
    (lists / "trainlist01.txt").write_bytes(b"HammerThrow/v_HammerThrow_g01_c01.avi 1\r\n\r\n")
    (lists / "testlist01.txt").write_bytes(b"\xef\xbb\xbfHammering/v_hammering_g02_c01.avi 2\n")
    touch(tmp_path, "UCF-101/hammerthrow/V_HammerThrow_g01_c01.AVI")
    return tmp_path


def test_ucf101_matches_without_case_and_reads_crlf_bom_and_blank_lines(ucf):
    listing = listed("ucf101", ucf)
    train, test = listing.videos
    assert (train.video_id, train.label, train.group) == (
        "HammerThrow/v_HammerThrow_g01_c01.avi",
        0,
        "HammerThrow/g01",
    )
    assert train.path.name == "V_HammerThrow_g01_c01.AVI"
    assert (test.label, test.path) == (1, None)
    assert "1 of 2 classes have no video" in listing.warnings[0]


def test_ucf101_files_that_differ_in_case_only_are_named(ucf):
    touch(ucf, "UCF-101/hammerthrow/v_hammerthrow_g01_c01.avi")
    with pytest.raises(LayoutError, match="alike but for case"):
        listed("ucf101", ucf)


def test_a_video_in_train_and_test_is_named(ucf):
    (ucf / "ucfTrainTestlist" / "testlist01.txt").write_text("HammerThrow/v_HammerThrow_g01_c01.avi\n")
    with pytest.raises(LayoutError, match=r"\(train\) and .* \(test\)"):
        listed("ucf101", ucf)


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "kinetics400", "folder", "demo"])
def test_a_missing_root_says_where_and_what_next(tmp_path, dataset):
    with pytest.raises(LayoutError) as error:
        listed(dataset, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in error.value.problem
    assert error.value.hint


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "kinetics600"])
def test_missing_lists_say_where_they_were_looked_for(tmp_path, dataset):
    with pytest.raises(LayoutError, match=str(tmp_path)) as error:
        listed(dataset, tmp_path)
    assert "http" in error.value.hint


def test_an_unknown_data_set_names_the_choices():
    with pytest.raises(RespikeError, match="did you mean 'ucf101'"):
        LAYOUTS.get("ucf-101")


def test_hmdb51_reads_codes_odd_names_and_trailing_spaces(tmp_path):
    odd = "(1) a & b__#[x]!+;~@ test_u_cm_np1_ba_med_0.avi"
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    (lists / "wave_test_split1.txt").write_text(f"{odd} 1 \nb.avi 2 \nc.avi 0 \n")
    (lists / "clap_test_split1.txt").write_text("d.avi 1 \n")
    touch(tmp_path, f"wave/{odd}", "wave/b.avi", "clap/d.avi")
    listing = listed("hmdb51", tmp_path)
    assert listing.classes == ("clap", "wave")
    assert ids(listing, "train") == ["clap/d.avi", f"wave/{odd}"]
    assert ids(listing, "test") == ["wave/b.avi"]
    assert listing.videos[1].path.is_file()


def write_kinetics(root):
    head = "label,youtube_id,time_start,time_end,split\n"
    (root / "train.csv").write_text(
        head + '"air drumming",-abc,3,13,train\nyoga,def,0,10,train\nyoga,gone,1,11,train\n'
    )
    (root / "val.csv").write_text(head + "yoga,ghi,7,17,val\n")
    (root / "test.csv").write_text("youtube_id,time_start,time_end,split\nxyz,1,11,test\n")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train/-abc_000003_000013.mp4", "train/def_000000_000010.mp4"),
        ("train/air drumming/-abc_000003_000013.mp4", "train/yoga/def_000000_000010.mp4"),
        ("train/air_drumming/-abc_000003_000013.mp4", "train/yoga/def_000000_000010.mp4"),
    ],
)
def test_kinetics_files_are_found_flat_and_in_class_folders(tmp_path, first, second):
    write_kinetics(tmp_path)
    touch(tmp_path, first, second, "val/ghi_000007_000017.mp4")
    listing = listed("kinetics400", tmp_path)
    assert listing.classes == ("air drumming", "yoga")
    assert listing.evaluation_subset == "val"
    found = {video.video_id: video.path and video.path.relative_to(tmp_path).as_posix() for video in listing.videos}
    assert found == {
        "train/-abc_000003_000013.mp4": first,
        "train/def_000000_000010.mp4": second,
        "train/gone_000001_000011.mp4": None,
        "val/ghi_000007_000017.mp4": "val/ghi_000007_000017.mp4",
    }


def test_a_kinetics_replacement_wins(tmp_path):
    write_kinetics(tmp_path)
    touch(tmp_path, "train/def_000000_000010.mp4", "replacement/replacement_for_corrupted_k400/def_000000_000010.mp4")
    video = next(v for v in listed("kinetics400", tmp_path).videos if "def" in v.video_id)
    assert "replacement" in video.path.parts[-3]


def test_kinetics_lists_of_paths_and_numbers_are_read(tmp_path):
    (tmp_path / "kinetics400_train_list_videos.txt").write_text("air drumming/a.mp4 0\nyoga/b.mp4 1\n")
    touch(tmp_path, "train/air drumming/a.mp4", "train/yoga/b.mp4")
    listing = listed("kinetics400", tmp_path)
    assert listing.classes == ("air drumming", "yoga")
    assert all(video.path for video in listing.videos)


def test_a_kinetics_clip_in_two_subsets_is_named(tmp_path):
    write_kinetics(tmp_path)
    (tmp_path / "val.csv").write_text((tmp_path / "train.csv").read_text())
    with pytest.raises(LayoutError, match="in train and in val"):
        listed("kinetics400", tmp_path)


def test_folder_keeps_a_seeded_fifth_of_each_class_for_the_test(tmp_path):
    touch(tmp_path, *(f"{name}/deep/{number}.mp4" for name in ("a", "b") for number in range(10)), "lone/x.mkv")
    touch(tmp_path, "a/notes.txt")
    listing = listed("folder", tmp_path)
    assert len(listing.videos) == 21
    tests = [video.class_name for video in listing.videos if video.subset == "test"]
    assert (tests.count("a"), tests.count("b"), tests.count("lone")) == (2, 2, 0)
    assert listed("folder", tmp_path) == listing
    assert ids(listed("folder", tmp_path, seed=1), "test") != ids(listing, "test")


def test_folder_takes_subsets_from_folders(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/a/3.mp4")
    listing = listed("folder", tmp_path)
    assert listing.classes == ("a", "b")
    assert ids(listing, "test") == ["test/a/3.mp4"]


def test_an_empty_class_folder_keeps_its_index_and_is_told(tmp_path):
    touch(tmp_path, "a/1.mp4", "c/2.mp4")
    (tmp_path / "b").mkdir()
    listing = listed("folder", tmp_path)
    assert [video.label for video in listing.videos] == [0, 2]
    assert "b" in listing.warnings[0]


@pytest.mark.parametrize("form", ["csv", "csv without header", "jsonl"])
def test_folder_takes_a_list(tmp_path, form):
    rows = [("x y.mp4", "wave", "train"), ("sub/ü.mp4", "clap", "test")]
    touch(tmp_path, "x y.mp4", "sub/ü.mp4")
    if form == "jsonl":
        path = tmp_path / "list.jsonl"
        lines = [json.dumps(dict(zip(("path", "label", "subset"), row, strict=True))) for row in rows]
        path.write_text("\n".join(lines))
    else:
        path = tmp_path / "list.csv"
        head = "path,label,subset\r\n" if form == "csv" else ""
        path.write_text(head + "\r\n\r\n".join(",".join(row) for row in rows))
    listing = listed("folder", tmp_path, list_path=path)
    assert [(v.video_id, v.class_name, v.subset) for v in listing.videos] == [tuple(row) for row in rows]


@pytest.mark.parametrize("name", ["../x.mp4", "/etc/x.mp4"])
def test_a_list_cannot_lead_out_of_the_root(tmp_path, name):
    path = tmp_path / "list.csv"
    path.write_text(f"path,label\n{name},a\n")
    with pytest.raises(LayoutError, match="out of --root"):
        listed("folder", tmp_path, list_path=path)


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "2.mp4").symlink_to(tmp_path / "a" / "1.mp4")
    assert ids(listed("folder", tmp_path)) == ["a/1.mp4", "a/2.mp4"]
