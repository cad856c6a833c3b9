"""Fixtures of data tests: a small prepare run, and the files that it writes undisturbed."""

import dataclasses
import json
from pathlib import Path

import pytest
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare
from respike.data.video_writer import write_video
from respike.types import VideoListing

from tests.conftest import contents, listing_of, moving_square

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
    """The files of an undisturbed run of SMALL, made in this process."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    prepare(listing_of(video_folder), out, SMALL, executor=run_serially)
    return contents(out)


@pytest.fixture(scope="session")
def shards(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of shards with frames of 64 x 48 pixels; tests must not change it."""
    out = tmp_path_factory.mktemp("shards") / "out"
    prepare(listing_of(video_folder), out, PrepareConfig(videos_per_shard=4), executor=run_serially)
    return out


@pytest.fixture
def half_file(tmp_path: Path) -> Path:
    """A Matroska file cut in the middle."""
    path = tmp_path / "half.mkv"
    write_video(path, iter(moving_square(60)), options={"g": 10})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def skipped(out: Path) -> list[tuple[str, str, str]]:
    """(video, stage, reason) of each skipped video of a set."""
    rows = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    return [(row["video"], row["stage"], row["reason"]) for row in rows]
