"""Clips/s of the loader with several workers. A training needs a loader that is faster."""

import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from gpu_shards import make_shards

# enough batches that those already queued when timing starts hardly matter
_BATCHES_A_WORKER = 150


def measure_loader(*, batch: int, size: int, workers: int, seconds: float, video: Path | None) -> dict[str, Any]:
    """Return clips/s of a training loader in one pass over a few clips that are repeated.

    If there is a GPU, batches are copied to pinned memory. The first two batches of each worker, which include its
    start, are not counted.
    """
    from respike.data import make_loader, open_shards

    with tempfile.TemporaryDirectory() as scratch:
        shards = open_shards(make_shards(Path(scratch), video, num_names=4, num_workers=1))
        num_times = -(-batch * workers * _BATCHES_A_WORKER // len(shards))
        many = shards.select([*range(len(shards))] * num_times)
        loader = make_loader(many, batch_size=batch, training=True, image_size=size, num_workers=workers)
        batches = iter(loader)
        started = time.perf_counter()
        for _ in islice(batches, 2 * workers):
            pass
        first, started = time.perf_counter() - started, time.perf_counter()
        num_clips = 0
        for clips in batches:
            num_clips += len(clips)
            if time.perf_counter() - started > seconds:
                break
        spent = time.perf_counter() - started
        return {
            "clips_per_second": round(num_clips / spent, 1),
            "workers": workers,
            "clips": num_clips,
            "start_s": round(first, 1),
        }
