"""Speed of `prepare` with two workers compared with one, on local processes and on Ray.

    python benchmarks/bench_workers.py [--videos 240] [--frames 96] [--engine local|ray|both] [--rounds 5] [--json PATH]

The time is from the start of the executor to the last finished shard. Ray is started before and its start is not
counted. A check compares the bytes of every run with those of the first.
"""

import argparse
import hashlib
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

from respike.data.datasets import DATASETS, ListingRequest
from respike.data.executors import local, ray
from respike.data.preparation import PrepareConfig, prepare

import clips
import harness

NUM_CLASSES = 6


def main() -> None:
    """Make the videos; measure and report each executor."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    executors = {"local": local.run, "ray": ray.run}
    chosen = executors if arguments.engine == "both" else {arguments.engine: executors[arguments.engine]}
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "videos", Path(folder) / "out"
        sources = clips.make_clips(Path(folder) / "clips", 4, arguments.frames)
        for number in range(arguments.videos):
            clips.link(sources[number % 4], root / f"class{number % NUM_CLASSES}" / f"v{number:05d}.avi")
        listing = DATASETS["folder"].list_videos(ListingRequest(root=root))
        settings = PrepareConfig(videos_per_shard=arguments.videos_per_shard)
        seen: set[str] = set()

        def run(executor: object, num_workers: int) -> float:
            shutil.rmtree(out, ignore_errors=True)
            summary = prepare(listing, out, settings, num_workers=num_workers, executor=executor)
            seen.add(hashlib.sha256((out / "dataset.json").read_bytes()).hexdigest())
            assert len(seen) == 1, "two runs wrote different bytes"
            return summary.speed.seconds

        for name, executor in chosen.items():
            if name == "ray":
                start_ray()
            variants = {f"{name}, workers: {n}": partial(run, executor, n) for n in (1, 2)}
            facts = {
                "videos": arguments.videos,
                "frames each": arguments.frames,
                "shards": -(-arguments.videos // arguments.videos_per_shard),
            }
            comparison = harness.compare(
                f"workers-{name}", variants, baseline=f"{name}, workers: 1", rounds=arguments.rounds, facts=facts
            )
            path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{name}")
            harness.report(comparison, path)


def start_ray() -> None:
    """Start a Ray instance with two processors; the Ray executor finds and uses it."""
    import ray

    # by default Ray starts its workers with a low priority
    os.environ.update(RAY_worker_niceness="0")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--videos", type=int, default=240)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--videos-per-shard", type=int, default=12)
    parser.add_argument("--engine", choices=["local", "ray", "both"], default="both")


if __name__ == "__main__":
    main()
