"""Short synthetic videos in the format of UCF101, and hard links to them, for benchmarks that need many videos."""

import os
from pathlib import Path

import numpy as np
from respike.data.video_writer import write_video

WIDTH, HEIGHT = 320, 240


def make_clip(path: Path, num_frames: int, seed: int) -> None:
    """Write a video like those of UCF101 (320 × 240, MPEG-4 in AVI): moving background, one moving object, noise."""
    random = np.random.default_rng(seed)
    ground = random.integers(30, 200, (HEIGHT // 8 + 8, WIDTH // 8 + 24, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)

    def frames():
        for number in range(num_frames):
            shift = number // 2 % 64
            frame = ground[shift // 4 : shift // 4 + HEIGHT, shift : shift + WIDTH].astype(np.int16)
            left = int(60 + 50 * np.sin(number / 9 + seed))
            frame[70:200, left : left + 60] = (200, 150, 120)
            frame += random.integers(-3, 4, frame.shape, dtype=np.int16)
            yield frame.clip(0, 255).astype(np.uint8)

    write_video(path, frames(), codec="mpeg4", options={"q:v": 6})


def make_clips(folder: Path, num_clips: int, num_frames: int) -> list[Path]:
    """Write `num_clips` different videos into `folder`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip{number}.avi" for number in range(num_clips)]
    for number, path in enumerate(paths):
        make_clip(path, num_frames, number)
    return paths


def link(source: Path, target: Path) -> None:
    """Create a hard link `target` to the file `source`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
