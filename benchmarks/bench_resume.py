"""Time of a resume with nothing to do, on a finished set of 13,320 videos, as many as UCF101 has.

    python benchmarks/bench_resume.py [--videos 13320] [--rounds 5] [--json PATH]

`respike prepare` makes the set once, from hard links to one short video. Then the same command runs again, each time in
a new process. The goal is 2 s.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from respike.data.video_writer import write_video

import harness

NUM_CLASSES = 101


def make_videos(root: Path, num_videos: int) -> None:
    """Create hard links to one video of 16 frames at 32 × 32."""
    clip = root.parent / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), np.uint8)
    write_video(clip, iter(frames), options={"crf": 40})
    for number in range(num_videos):
        folder = root / f"class{number % NUM_CLASSES:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(clip, folder / f"v{number:05d}.mp4")


def timed(command: list[str]) -> float:
    """Return the wall time of a command in seconds."""
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Make the set, then measure and report the resume."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "videos", Path(folder) / "shards"
        make_videos(root, arguments.videos)
        command = [sys.executable, "-m", "respike", "prepare", "folder", "--root", str(root), "--out", str(out)]
        command.append("--quiet")
        first = timed(command)
        comparison = harness.compare(
            "resume with nothing to do",
            {"resume": lambda: timed(command)},
            baseline="resume",
            rounds=arguments.rounds,
            facts={"videos": arguments.videos, "videos/s of the first run": round(arguments.videos / first)},
        )
        harness.report(comparison, arguments.json)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--videos", type=int, default=13_320)


if __name__ == "__main__":
    main()
