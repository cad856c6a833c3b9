"""What several tests of preparing need: a small run, and what it writes where nothing happens to it."""

import dataclasses
from pathlib import Path

import pytest
from respike.data.executors import base
from respike.data.preparation import PrepareConfig, prepare
from respike.types import VideoListing

from tests.conftest import contents, listing_of

SMALL = PrepareConfig(videos_per_shard=3, short_side=32)


def replaced(listing: VideoListing, number: int, path: Path | None) -> VideoListing:
    """The listing with one of its videos elsewhere."""
    videos = list(listing.videos)
    videos[number] = dataclasses.replace(videos[number], path=path)
    return dataclasses.replace(listing, videos=tuple(videos))


@pytest.fixture(scope="session")
def listing(video_folder: Path) -> VideoListing:
    return listing_of(video_folder)


@pytest.fixture(scope="session")
def undisturbed(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run of SMALL leaves that nothing happened to, in this process and so without an engine that could err."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    prepare(listing_of(video_folder), out, SMALL, engine=base.run)
    return contents(out)
