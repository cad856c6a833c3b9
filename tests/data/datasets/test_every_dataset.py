"""Every dataset: missing roots and lists, splits, links, untidy lists, videos listed twice."""

import subprocess
import sys

import pytest
from respike.common.errors import DatasetError, RespikeError, SettingError
from respike.common.text import pick
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.video_check import check

from tests.data.datasets.trees import found, listed, touch

NAMES = ["ucf101", "hmdb51", "kinetics400", "kinetics600", "kinetics700", "folder", "demo"]
PAGES = {
    "ucf101": "crcv.ucf.edu",
    "hmdb51": "serre-lab.clps.brown.edu",
    "kinetics400": "cvdfoundation/kinetics-dataset",
}


def test_every_dataset_is_in_the_table_under_its_name():
    assert list(DATASETS) == NAMES
    assert [DATASETS[name].name for name in NAMES] == NAMES
    assert [DATASETS[name].splits for name in NAMES] == [(1, 2, 3)] * 2 + [()] * 5
    assert [DATASETS[name].default_sampling for name in NAMES] == ["dense"] * 2 + ["uniform"] * 3 + ["dense"] * 2


@pytest.mark.parametrize("dataset", NAMES)
@pytest.mark.parametrize("kind", ["absent", "a file"])
def test_a_missing_root_is_one_line_with_a_hint(tmp_path, dataset, kind):
    root = tmp_path / "nowhere"
    if kind == "a file":
        root.write_text("")
    with pytest.raises(DatasetError, match="there is no folder") as error:
        listed(dataset, root)
    assert error.value.problem.startswith(f"there is no folder {root} to look for ")
    assert error.value.hint
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dataset", PAGES)
def test_missing_lists_say_where_to_get_them(tmp_path, dataset):
    with pytest.raises(DatasetError, match=str(tmp_path)) as error:
        listed(dataset, tmp_path)
    assert PAGES[dataset] in error.value.hint


def test_lists_without_videos_say_where_to_get_them(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\nyoga,a,0,10\n")
    with pytest.raises(DatasetError, match=r"none of the 1 listed videos is under .*; the first is ") as error:
        listed("kinetics400", tmp_path)
    assert "https://" in error.value.hint


@pytest.mark.parametrize(("dataset", "split"), [("ucf101", 4), ("ucf101", 0), ("hmdb51", 4), ("kinetics400", 1),
                                                ("folder", 1), ("demo", 1)])  # fmt: skip
def test_a_split_that_does_not_exist_is_an_error(tmp_path, dataset, split):
    touch(tmp_path, "train/a/1.mp4")
    with pytest.raises(SettingError, match=f"split {split} of {dataset} does not exist"):
        listed(dataset, tmp_path, split=split)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(SettingError, match="seed is -1"):
        ListingRequest(root=tmp_path, seed=-1)


def test_an_unknown_dataset_names_the_choices():
    with pytest.raises(RespikeError, match="did you mean 'ucf101'"):
        pick(DATASETS, "ucf-101", "data set")


def test_listing_loads_neither_torch_nor_a_video_library():
    code = "import sys, respike.data.datasets; print(sorted({'torch', 'cv2', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def make_folder(root):
    touch(root, "wave/1.mp4", "clap/2.mp4")
    return "wave/1.mp4"


def make_ucf101(root):
    (root / "ucfTrainTestlist").mkdir(parents=True)
    (root / "ucfTrainTestlist" / "classInd.txt").write_text("1 clap\n2 wave\n")
    (root / "ucfTrainTestlist" / "trainlist01.txt").write_text("wave/1.avi 2\n")
    (root / "ucfTrainTestlist" / "testlist01.txt").write_text("clap/2.avi\n")
    touch(root, "UCF-101/wave/1.avi", "UCF-101/clap/2.avi")
    return "UCF-101/wave/1.avi"


def make_hmdb51(root):
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    (lists / "wave_test_split1.txt").write_text("1.avi 1 \n")
    (lists / "clap_test_split1.txt").write_text("2.avi 2 \n")
    touch(root, "wave/1.avi", "clap/2.avi")
    return "wave/1.avi"


def make_kinetics400(root):
    head = "label,youtube_id,time_start,time_end,split\n"
    touch(root, "train/wave/a_000000_000010.mp4", "val/clap/b_000000_000010.mp4")
    (root / "train.csv").write_text(head + "wave,a,0,10,train\n")
    (root / "val.csv").write_text(head + "clap,b,0,10,val\n")
    return "train/wave/a_000000_000010.mp4"


TREES = {
    "folder": make_folder,
    "ucf101": make_ucf101,
    "hmdb51": make_hmdb51,
    "kinetics400": make_kinetics400,
}


@pytest.fixture(params=TREES)
def tree(request, tmp_path):
    """(data set, root, a video that is there)."""
    root = tmp_path / "root"
    return request.param, root, root / TREES[request.param](root)


def move_out(path, tmp_path):
    target = tmp_path / "another disk" / path.name
    target.parent.mkdir()
    path.rename(target)
    path.symlink_to(target)


def is_found(dataset, root, path, **request):
    return path.relative_to(root).as_posix() in found(listed(dataset, root, **request), root).values()


def test_follow_symlinks_decides_on_linked_videos(tree, tmp_path):
    dataset, root, path = tree
    move_out(path, tmp_path)
    assert is_found(dataset, root, path)
    assert not is_found(dataset, root, path, follow_symlinks=False)
    listing = listed(dataset, root, follow_symlinks=False)
    assert any(warning.startswith("videos that are links out of ") for warning in listing.warnings)
    assert len(listing.videos) == len(listed(dataset, root).videos)


def test_follow_symlinks_decides_on_linked_class_folders(tree, tmp_path):
    dataset, root, path = tree
    move_out(path.parent, tmp_path)
    assert is_found(dataset, root, path)
    assert not is_found(dataset, root, path, follow_symlinks=False)
    kept, followed = listed(dataset, root, follow_symlinks=False), listed(dataset, root)
    # skipping the class would shift the labels of all that follow
    assert (kept.classes, len(kept.videos)) == (followed.classes, len(followed.videos))
    assert any(warning.startswith("videos that are links out of ") for warning in kept.warnings)


def test_links_inside_the_root_are_always_followed(tree):
    dataset, root, path = tree
    kept = root / "kept" / path.name
    kept.parent.mkdir()
    # in a hidden folder, so that it is listed once
    hidden = kept.parent.rename(root / ".kept") / path.name
    path.rename(hidden)
    path.symlink_to(hidden)
    assert is_found(dataset, root, path)
    assert is_found(dataset, root, path, follow_symlinks=False)


def test_the_root_itself_may_be_a_link(tree, tmp_path):
    dataset, root, path = tree
    move_out(root, tmp_path)
    assert is_found(dataset, root, path, follow_symlinks=False)


def test_a_loop_of_links_ends(tree):
    dataset, root, path = tree
    (path.parent / "loop").symlink_to(root)
    (path.parent / "self").symlink_to(path.parent / "self")
    (root / "up").symlink_to(root.parent)
    assert is_found(dataset, root, path)
    assert is_found(dataset, root, path, follow_symlinks=False)


def test_a_video_that_is_a_link_to_itself_counts_as_missing(tree):
    dataset, root, path = tree
    path.unlink()
    path.symlink_to(path)
    listing = listed(dataset, root)
    assert len(listing.videos) == 2
    assert [fault.stage for fault in check(listing).faults if path.stem in fault.video] == ["missing"]


FORMS = {
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "BOM": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "BOM and CRLF": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n  \n").encode(),
    "no last newline": lambda text: text.rstrip("\n").encode(),
    "Latin-1": lambda text: text.encode("latin-1"),
}


def folder_list(root):
    make_folder(root)
    touch(root, "café.mp4")
    (root / "list.csv").write_text("path,label,subset\nwave/1.mp4,wavé,train\ncafé.mp4,clap,test\n")


def ucf101_lists(root):
    make_ucf101(root)
    (root / "ucfTrainTestlist" / "trainlist01.txt").write_text("wave/1.avi 2\nwave/café.avi 2\n")
    touch(root, "UCF-101/wave/café.avi")


def hmdb51_lists(root):
    make_hmdb51(root)
    (root / "testTrainMulti_7030_splits" / "wave_test_split1.txt").write_text("1.avi 1 \ncafé.avi 1 \n")
    touch(root, "wave/café.avi")


def kinetics400_lists(root):
    make_kinetics400(root)
    path = root / "train.csv"
    path.write_text(path.read_text() + '"fête, dancing",é,0,10,train\n')
    touch(root, "train/é_000000_000010.mp4")


LISTED_TREES = {"folder": folder_list, "ucf101": ucf101_lists, "hmdb51": hmdb51_lists, "kinetics400": kinetics400_lists}


def list_all(dataset, root):
    return listed(dataset, root, list_path=root / "list.csv" if dataset == "folder" else None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dataset", LISTED_TREES)
def test_line_ends_and_encoding_do_not_change_a_listing(tmp_path, dataset, form):
    LISTED_TREES[dataset](tmp_path)
    clean = list_all(dataset, tmp_path)
    assert all(video.path is not None for video in clean.videos)
    for path in [*tmp_path.rglob("*.txt"), *tmp_path.rglob("*.csv")]:
        path.write_bytes(FORMS[form](path.read_text()))
    assert list_all(dataset, tmp_path) == clean


@pytest.mark.parametrize("dataset", LISTED_TREES)
def test_missing_videos_keep_ids_and_labels(tmp_path, dataset):
    LISTED_TREES[dataset](tmp_path)
    clean = list_all(dataset, tmp_path)
    clean.videos[0].path.unlink()
    listing = list_all(dataset, tmp_path)
    assert [video.video_id for video in listing.videos] == [video.video_id for video in clean.videos]
    assert [video.label for video in listing.videos] == [video.label for video in clean.videos]
    assert sum(video.path is None for video in listing.videos) == 1


def add_row(root, dataset, *, case, other_subset):
    """List the first video once more: in another case, or in the other subset."""
    name = {"folder": "wave/1.mp4", "ucf101": "wave/1.avi", "hmdb51": "1.avi", "kinetics400": "a"}[dataset]
    name = name.upper() if case else name
    path, row = {
        "folder": (root / "list.csv", f"{name},wavé,{'test' if other_subset else 'train'}\n"),
        "ucf101": (root / "ucfTrainTestlist" / f"{'test' if other_subset else 'train'}list01.txt", f"{name} 2\n"),
        "hmdb51": (
            root / "testTrainMulti_7030_splits" / "wave_test_split1.txt",
            f"{name} {2 if other_subset else 1} \n",
        ),
        "kinetics400": (root / f"{'val' if other_subset else 'train'}.csv", f"wave,{name},0,10,x\n"),
    }[dataset]
    path.write_text(path.read_text() + row)


@pytest.mark.parametrize("case", [False, True])
@pytest.mark.parametrize("other_subset", [False, True])
@pytest.mark.parametrize("dataset", LISTED_TREES)
def test_a_video_listed_twice_is_named_with_both_places(tmp_path, dataset, case, other_subset):
    LISTED_TREES[dataset](tmp_path)
    add_row(tmp_path, dataset, case=case, other_subset=other_subset)
    with pytest.raises(DatasetError) as error:
        list_all(dataset, tmp_path)
    problem = error.value.problem.lower()
    assert problem.count("1.") == 2 or problem.count("a_000000_000010.mp4") in (1, 2)
    if other_subset:
        assert "train" in problem
        assert "test" in problem or "val" in problem


def test_names_equal_after_decoding_are_an_error(tmp_path):
    touch(tmp_path, "a/1.mp4", "a/café.mp4")
    (tmp_path / "a" / "caf\udce9.mp4").write_bytes(b"v")
    with pytest.raises(DatasetError, match="are both listed"):
        listed("folder", tmp_path)
