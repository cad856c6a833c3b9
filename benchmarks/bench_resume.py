"""How long a resume takes that has nothing to do: a finished UCF101-sized set of 13,320 videos.

The set is made by the real program once, from hard links to one short clip; then the same command runs again, in a
process of its own each time, and the median of its wall times is told.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from respike.data.video_writer import write_video

NUM_VIDEOS, NUM_CLASSES, NUM_RUNS = 13_320, 101, 5


def make_videos(root: Path) -> None:
    """Hard links to one clip of 16 frames at 32 × 32."""
    clip = root.parent / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), np.uint8)
    write_video(clip, iter(frames), options={"crf": 40})
    for number in range(NUM_VIDEOS):
        folder = root / f"class{number % NUM_CLASSES:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(clip, folder / f"v{number:05d}.mp4")


def timed(command: list[str]) -> float:
    """Wall time of a command, in seconds."""
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "videos", Path(folder) / "shards"
        make_videos(root)
        command = [sys.executable, "-m", "respike", "prepare", "folder", "--root", str(root), "--out", str(out)]
        first = timed([*command, "--quiet"])
        print(f"first run: {first:.1f} s, {NUM_VIDEOS / first:.0f} videos/s")
        times = [timed([*command, "--quiet"]) for _ in range(NUM_RUNS)]
        print(f"resume with nothing to do: {statistics.median(times):.2f} s (median of {NUM_RUNS}), goal 2 s")


if __name__ == "__main__":
    main()
