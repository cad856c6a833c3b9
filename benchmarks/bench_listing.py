"""Listing and planning Kinetics-400 at full size: 240,000 rows, files for half of them. Seconds and peak memory.

python benchmarks/bench_listing.py [--rows 240000] [--present 0.5]
"""

import argparse
import csv
import resource
import tempfile
import time
from pathlib import Path

from respike.data.layouts import LAYOUTS, ListingRequest
from respike.data.prepare import PrepareSettings, plan_shards

NUM_CLASSES = 400


def make_tree(root: Path, num_rows: int, present: float) -> None:
    """A list as published and, for a share of its rows, a small file in the class's folder of the subset."""
    classes = [f"class {number:03d}" for number in range(NUM_CLASSES)]
    num_val = num_rows // 12
    for subset, numbers in (("train", range(num_val, num_rows)), ("val", range(num_val))):
        for name in classes:
            (root / subset / name.replace(" ", "_")).mkdir(parents=True)
        with (root / f"{subset}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
            for number in numbers:
                name, start = classes[number % NUM_CLASSES], number % 600
                writer.writerow([name, f"{number:08d}abc", start, start + 10, subset, 0])
                # a permutation that scatters the missing ones over classes and shards
                if number * 7919 % num_rows < present * num_rows:
                    target = (
                        root / subset / name.replace(" ", "_") / f"{number:08d}abc_{start:06d}_{start + 10:06d}.mp4"
                    )
                    target.write_bytes(b"video")


def main() -> None:
    """Make the tree, list it, plan its shards; print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=240_000)
    parser.add_argument("--present", type=float, default=0.5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, arguments.rows, arguments.present)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        listing = LAYOUTS.get("kinetics400").list_videos(ListingRequest(root=root))
        listed = time.perf_counter()
        tasks = plan_shards(listing, root / "out", PrepareSettings(sampling="uniform"))
        planned = time.perf_counter()
        missing = sum(video.path is None for video in listing.videos)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{len(listing.videos):,} videos listed, {missing:,} missing, {len(tasks):,} shards planned")
    print(f"listing {listed - started:.1f} s, planning {planned - listed:.1f} s, peak {peak / 1024:.0f} MB")
    print(f"{before / 1024:.0f} MB of it before")


if __name__ == "__main__":
    main()
