"""Time and peak memory to list and plan Kinetics-400 at full size: 240,000 rows, half of the files present.

python benchmarks/bench_listing.py [--rows 240000] [--present 0.5] [--json PATH]
"""

import argparse
import csv
import resource
import tempfile
from pathlib import Path
from typing import Any

from respike.data.datasets import DATASETS, ListingRequest
from respike.data.preparation import PrepareConfig, plan_shards

import harness

NUM_CLASSES = 400


def make_tree(root: Path, num_rows: int, present: float) -> None:
    """Write lists in the published format and, for a share of the rows, a small file in the folder of its class."""
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
                # spreads the missing files over classes and shards
                if number * 7919 % num_rows < present * num_rows:
                    target = (
                        root / subset / name.replace(" ", "_") / f"{number:08d}abc_{start:06d}_{start + 10:06d}.mp4"
                    )
                    target.write_bytes(b"video")


def main() -> None:
    """Make the tree, list it, plan its shards; report both times."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, arguments.rows, arguments.present)
        before = peak_megabytes()
        made: dict[str, Any] = {}

        def list_videos() -> None:
            made["listing"] = DATASETS["kinetics400"].list_videos(ListingRequest(root=root))

        def plan() -> None:
            made["tasks"] = plan_shards(made["listing"], root / "out", PrepareConfig(sampling="uniform"))

        comparison = harness.compare(
            "listing and planning",
            {"list": list_videos, "plan": plan},
            baseline="list",
            rounds=arguments.rounds,
            warm_up=False,
            facts={"rows": arguments.rows},
        )
    missing = sum(video.path is None for video in made["listing"].videos)
    comparison["facts"] |= {"missing": missing, "shards": len(made["tasks"])}
    comparison["facts"] |= {"MB before": before, "peak MB": peak_megabytes()}
    harness.report(comparison, arguments.json)


def peak_megabytes() -> int:
    """Return the peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rows", type=int, default=240_000)
    parser.add_argument("--present", type=float, default=0.5, help="share of rows whose file exists")
    parser.set_defaults(rounds=1)


if __name__ == "__main__":
    main()
