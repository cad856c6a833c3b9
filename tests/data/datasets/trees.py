"""Small folders of files that stand for videos, and what a dataset lists of them."""

from pathlib import Path

from respike.data.datasets import DATASETS, ListingRequest
from respike.types import VideoListing


def touch(root: Path, *names: str) -> None:
    """Make the named files, with their folders."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"v")


def listed(dataset: str, root: Path, **request) -> VideoListing:
    """What the dataset lists."""
    return DATASETS[dataset].list_videos(ListingRequest(root=root, **request))


def found(listing: VideoListing, root: Path) -> dict[str, str | None]:
    """Where each listed video was found, relative to the root."""
    return {video.video_id: video.path and video.path.relative_to(root).as_posix() for video in listing.videos}


def ids(listing: VideoListing, subset: str | None = None) -> list[str]:
    """The listed ids, of one subset or of all."""
    return [video.video_id for video in listing.videos if subset in (None, video.subset)]
