"""Short encoded clips of UCF101's kind, and trees of many names for them, for benchmarks that need many videos."""

import os
from pathlib import Path

import numpy as np
from respike.data.video_writer import write_video

WIDTH, HEIGHT = 320, 240


def make_clip(path: Path, num_frames: int, seed: int) -> None:
    """A clip as UCF101 has them: 320 × 240, MPEG-4 in AVI; a textured ground that pans, a body that moves, grain."""
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
    """`num_clips` different clips in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip{number}.avi" for number in range(num_clips)]
    for number, path in enumerate(paths):
        make_clip(path, num_frames, number)
    return paths


def link(source: Path, target: Path) -> None:
    """Give a clip another name without a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
