"""Promises on links, for every layout: followed out of the root unless asked not to, and then counted and told."""

import pytest
from respike.data.video_check import check

from tests.data.datasets.trees import found, listed, touch


def folder(root):
    touch(root, "wave/1.mp4", "clap/2.mp4")
    return "wave/1.mp4"


def ucf101(root):
    (root / "ucfTrainTestlist").mkdir(parents=True)
    (root / "ucfTrainTestlist" / "classInd.txt").write_text("1 clap\n2 wave\n")
    (root / "ucfTrainTestlist" / "trainlist01.txt").write_text("wave/1.avi 2\n")
    (root / "ucfTrainTestlist" / "testlist01.txt").write_text("clap/2.avi\n")
    touch(root, "UCF-101/wave/1.avi", "UCF-101/clap/2.avi")
    return "UCF-101/wave/1.avi"


def hmdb51(root):
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    (lists / "wave_test_split1.txt").write_text("1.avi 1 \n")
    (lists / "clap_test_split1.txt").write_text("2.avi 2 \n")
    touch(root, "wave/1.avi", "clap/2.avi")
    return "wave/1.avi"


def kinetics400(root):
    head = "label,youtube_id,time_start,time_end,split\n"
    touch(root, "train/wave/a_000000_000010.mp4", "val/clap/b_000000_000010.mp4")
    (root / "train.csv").write_text(head + "wave,a,0,10,train\n")
    (root / "val.csv").write_text(head + "clap,b,0,10,val\n")
    return "train/wave/a_000000_000010.mp4"


LAYOUTS = [folder, ucf101, hmdb51, kinetics400]


@pytest.fixture(params=LAYOUTS, ids=lambda make: make.__name__)
def tree(request, tmp_path):
    """(data set, root, a video that is there)."""
    root = tmp_path / "root"
    return request.param.__name__, root, root / request.param(root)


def move_out(path, tmp_path):
    target = tmp_path / "another disk" / path.name
    target.parent.mkdir()
    path.rename(target)
    path.symlink_to(target)


def is_found(dataset, root, path, **request):
    return path.relative_to(root).as_posix() in found(listed(dataset, root, **request), root).values()


def test_a_video_that_is_a_link_out_of_the_root_is_followed_unless_asked_not_to(tree, tmp_path):
    dataset, root, path = tree
    move_out(path, tmp_path)
    assert is_found(dataset, root, path)
    assert not is_found(dataset, root, path, follow_symlinks=False)
    listing = listed(dataset, root, follow_symlinks=False)
    assert any(warning.startswith("1 video is a link out of ") for warning in listing.warnings)
    assert len(listing.videos) == len(listed(dataset, root).videos)


def test_a_class_folder_that_is_a_link_out_of_the_root_is_followed_unless_asked_not_to(tree, tmp_path):
    dataset, root, path = tree
    move_out(path.parent, tmp_path)
    assert is_found(dataset, root, path)
    assert not is_found(dataset, root, path, follow_symlinks=False)
    kept, followed = listed(dataset, root, follow_symlinks=False), listed(dataset, root)
    # left out they would shift the labels of all that follow
    assert (kept.classes, len(kept.videos)) == (followed.classes, len(followed.videos))
    assert any(warning.startswith("1 video is a link out of ") for warning in kept.warnings)


def test_a_link_that_stays_in_the_root_is_followed_either_way(tree):
    dataset, root, path = tree
    kept = root / "kept" / path.name
    kept.parent.mkdir()
    # hidden from the layouts, so that it is listed once
    hidden = kept.parent.rename(root / ".kept") / path.name
    path.rename(hidden)
    path.symlink_to(hidden)
    assert is_found(dataset, root, path)
    assert is_found(dataset, root, path, follow_symlinks=False)


def test_a_root_that_is_itself_a_link_is_no_way_out(tree, tmp_path):
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
