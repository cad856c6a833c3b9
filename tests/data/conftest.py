"""Fixtures of data tests: a small prepare run and the shards of twelve small videos."""

import dataclasses
from pathlib import Path

import pytest
from respike.data.executors import base
from respike.data.preparation import PrepareConfig, prepare
from respike.types import VideoListing

from tests.conftest import contents, listing_of

SMALL = PrepareConfig(videos_per_shard=3, short_side=32)


def replaced(listing: VideoListing, number: int, path: Path | None) -> VideoListing:
    """Return the listing with another path of one of its videos."""
    videos = list(listing.videos)
    videos[number] = dataclasses.replace(videos[number], path=path)
    return dataclasses.replace(listing, videos=tuple(videos))


@pytest.fixture(scope="session")
def listing(video_folder: Path) -> VideoListing:
    return listing_of(video_folder)


@pytest.fixture(scope="session")
def undisturbed(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of an undisturbed run of SMALL, made in this process."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    prepare(listing_of(video_folder), out, SMALL, engine=base.run)
    return contents(out)


@pytest.fixture(scope="session")
def shards(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of shards with frames of 64 x 48 pixels; tests must not change it."""
    out = tmp_path_factory.mktemp("shards") / "out"
    prepare(listing_of(video_folder), out, PrepareConfig(videos_per_shard=4), engine=base.run)
    return out
