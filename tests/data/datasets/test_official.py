"""UCF101 and HMDB51 with every official name: counts, labels, groups."""

import os
import shutil
from pathlib import Path

import pytest
from respike.data.datasets import DATASETS, ListingRequest

ANNOTATIONS = Path(__file__).parents[4] / "shared" / "annotations"
needs_lists = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the official lists are missing")


def link_tree(root: Path, names: set[str]) -> None:
    """Make every name a hard link to one small file."""
    source = root / "source"
    source.write_bytes(b"video")
    for folder in {name.partition("/")[0] for name in names}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        os.link(source, root / name)
    source.unlink()


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory):
    root = tmp_path_factory.mktemp("ucf101")
    shutil.copytree(ANNOTATIONS / "ucf101", root / "ucfTrainTestlist")
    names = set()
    for path in (root / "ucfTrainTestlist").glob("*list01.txt"):
        names |= {line.split()[0] for line in path.read_text().splitlines() if line.strip()}
    (root / "UCF-101").mkdir()
    # as on disk: the folder is spelled Handstand, the files HandStand
    link_tree(root / "UCF-101", {name.replace("HandStandPushups/", "HandstandPushups/") for name in names})
    return root


@needs_lists
@pytest.mark.parametrize(("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_ucf101_splits_have_the_official_counts(ucf101, split, train, test):
    listing = DATASETS["ucf101"].list_videos(ListingRequest(root=ucf101, split=split))
    subsets = [video.subset for video in listing.videos]
    assert (subsets.count("train"), subsets.count("test"), len(listing.classes)) == (train, test, 101)
    assert all(video.path is not None for video in listing.videos)
    assert listing.warnings == ()


@needs_lists
def test_ucf101_labels_are_those_of_the_class_list(ucf101):
    listing = DATASETS["ucf101"].list_videos(ListingRequest(root=ucf101))
    assert listing.classes != tuple(sorted(listing.classes))
    assert listing.classes[0] == "ApplyEyeMakeup"
    assert listing.classes.index("Hammering") < listing.classes.index("HammerThrow")
    labelled = {
        line.split()[0].lower(): int(line.split()[1]) - 1
        for line in (ucf101 / "ucfTrainTestlist" / "trainlist01.txt").read_text().splitlines()
        if line.strip()
    }
    train = [video for video in listing.videos if video.subset == "train"]
    assert {video.video_id.lower(): video.label for video in train} == labelled


@needs_lists
def test_ucf101_groups_are_in_one_subset_only(ucf101):
    listing = DATASETS["ucf101"].list_videos(ListingRequest(root=ucf101))
    sides = {subset: {v.group for v in listing.videos if v.subset == subset} for subset in ("train", "test")}
    assert None not in sides["train"]
    assert sides["train"].isdisjoint(sides["test"])


def hmdb51(root, split):
    folder = root / "testTrainMulti_7030_splits"
    shutil.copytree(ANNOTATIONS / "hmdb51", folder)
    names = set()
    for path in folder.glob(f"*_test_split{split}.txt"):
        name = path.name.removesuffix(f"_test_split{split}.txt")
        names |= {
            f"{name}/{line.rstrip().rpartition(' ')[0]}" for line in path.read_text().splitlines() if line.strip()
        }
    (root / "hmdb51").mkdir()
    link_tree(root / "hmdb51", names)
    return DATASETS["hmdb51"].list_videos(ListingRequest(root=root, split=split))


@needs_lists
@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_splits_have_the_official_counts(tmp_path, split):
    listing = hmdb51(tmp_path, split)
    subsets = [video.subset for video in listing.videos]
    assert (subsets.count("train"), subsets.count("test"), len(listing.classes)) == (3570, 1530, 51)
    assert all(video.path is not None for video in listing.videos)


@needs_lists
@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_groups_are_in_one_subset_only(tmp_path, split):
    listing = hmdb51(tmp_path, split)
    sides = {subset: {v.group for v in listing.videos if v.subset == subset} for subset in ("train", "test")}
    assert None not in sides["train"] | sides["test"]
    assert sides["train"].isdisjoint(sides["test"])
    # several videos a source, or nothing would be kept together
    assert len(sides["train"]) < 0.45 * 3570
