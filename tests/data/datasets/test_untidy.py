"""Promises on untidy lists, for every layout: however a list was saved it lists the same; what is doubled is named."""

import pytest
from respike.common.errors import LayoutError

from tests.data.datasets.test_links import folder, hmdb51, kinetics400, ucf101
from tests.data.datasets.trees import listed, touch

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
    folder(root)
    touch(root, "café.mp4")
    (root / "list.csv").write_text("path,label,subset\nwave/1.mp4,wavé,train\ncafé.mp4,clap,test\n")


def ucf101_lists(root):
    ucf101(root)
    (root / "ucfTrainTestlist" / "trainlist01.txt").write_text("wave/1.avi 2\nwave/café.avi 2\n")
    touch(root, "UCF-101/wave/café.avi")


def hmdb51_lists(root):
    hmdb51(root)
    (root / "testTrainMulti_7030_splits" / "wave_test_split1.txt").write_text("1.avi 1 \ncafé.avi 1 \n")
    touch(root, "wave/café.avi")


def kinetics400_lists(root):
    kinetics400(root)
    path = root / "train.csv"
    path.write_text(path.read_text() + '"fête, dancing",é,0,10,train\n')
    touch(root, "train/é_000000_000010.mp4")


MAKERS = {"folder": folder_list, "ucf101": ucf101_lists, "hmdb51": hmdb51_lists, "kinetics400": kinetics400_lists}


def list_all(dataset, root):
    return listed(dataset, root, list_path=root / "list.csv" if dataset == "folder" else None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dataset", MAKERS)
def test_a_list_lists_the_same_however_it_was_saved(tmp_path, dataset, form):
    MAKERS[dataset](tmp_path)
    clean = list_all(dataset, tmp_path)
    assert all(video.path is not None for video in clean.videos)
    for path in [*tmp_path.rglob("*.txt"), *tmp_path.rglob("*.csv")]:
        path.write_bytes(FORMS[form](path.read_text()))
    assert list_all(dataset, tmp_path) == clean


@pytest.mark.parametrize("dataset", MAKERS)
def test_listed_videos_that_are_not_there_are_listed_all_the_same(tmp_path, dataset):
    MAKERS[dataset](tmp_path)
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
@pytest.mark.parametrize("dataset", MAKERS)
def test_a_video_listed_twice_is_named_with_both_places(tmp_path, dataset, case, other_subset):
    MAKERS[dataset](tmp_path)
    add_row(tmp_path, dataset, case=case, other_subset=other_subset)
    with pytest.raises(LayoutError) as error:
        list_all(dataset, tmp_path)
    problem = error.value.problem.lower()
    assert problem.count("1.") == 2 or problem.count("a_000000_000010.mp4") in (1, 2)
    if other_subset:
        assert "train" in problem
        assert "test" in problem or "val" in problem


def test_names_that_are_one_once_they_can_be_written_are_named(tmp_path):
    touch(tmp_path, "a/1.mp4", "a/café.mp4")
    (tmp_path / "a" / "caf\udce9.mp4").write_bytes(b"v")
    with pytest.raises(LayoutError, match="listed both"):
        listed("folder", tmp_path)
