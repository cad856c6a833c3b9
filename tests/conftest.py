"""Helpers and fixtures of all tests: small encoded videos, and listings of them."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from respike.data.video_writer import write_video
from respike.types import VideoListing, VideoRef

# under nohup, SIGHUP is ignored, and respike leaves it so; the tests need it as a terminal gives it
with contextlib.suppress(ValueError):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

REAL_CLIPS = Path(__file__).parents[2] / "shared" / "clips"


def moving_square(num_frames: int, *, width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """Return frames with a texture at rest and a bright square that moves one pixel a frame: uint8 RGB [T, H, W, 3]."""
    generator = np.random.default_rng(seed)
    still = generator.integers(40, 160, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)
    frames = np.tile(still[None, :height, :width], (num_frames, 1, 1, 1)).astype(np.uint8)
    for number in range(num_frames):
        left = (seed + number) % (width - 12)
        frames[number, 10:22, left : left + 12] = 235
    return frames


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twelve short H.264 videos of two classes, 40 frames each."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(12):
        folder = root / ("wave", "jump")[number % 2]
        folder.mkdir(exist_ok=True)
        write_video(folder / f"v{number:02d}.mp4", iter(moving_square(40, seed=number)), options={"crf": 18})
    return root


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache free of downloads of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESPIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of a folder by name: everything that must not differ between two runs."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def files_under(folder: Path) -> dict[str, bytes]:
    """Return all files under a folder by their relative paths."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listing_of(root: Path) -> VideoListing:
    """Return a listing of `root/<class>/*`: every fifth video is test, the rest train."""
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    videos = [
        VideoRef(
            video_id=f"{name}/{path.name}",
            path=path,
            label=label,
            class_name=name,
            subset="test" if number % 5 == 4 else "train",
            group=f"{name}/{number // 2}",
        )
        for label, name in enumerate(classes)
        for number, path in enumerate(sorted((root / name).iterdir()))
    ]
    return VideoListing(dataset="folder", split=None, evaluation_subset="test", classes=classes, videos=tuple(videos))
