"""Size and reading time of events with several ways of packing, on a folder of videos.

    python benchmarks/study_packing.py --clips FOLDER --json packing.json

The events of each clip are packed again and compressed with zstd level 1, as in shards. Sizes are kilobytes a clip.
`ms` is the time to decompress and unpack on one thread, the minimum of five runs.

- plain: one byte an event, plane after plane, as in version 1 of the format.
- stored: as in shards.
- across: the same with transposed planes, so events are predicted from the left neighbour.
- no lone events: stored, without events that have no neighbour in their plane; noise filters of event cameras do this.
- median: half bytes after the median predictor of JPEG-LS, whose inverse needs a loop over pixels.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray
from respike.data import open_shards
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.event_codec import pack, unpack
from respike.data.preparation import PrepareConfig, prepare

Events = NDArray[np.int8]


def main() -> None:
    """Print one row for each video: the mean over its clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for video, planes in read_clips(arguments.clips, Path(scratch)):
            rows.setdefault(video, []).append(measure(planes))
    means = {
        video: {name: round(statistics.fmean(row[name] for row in clips), 2) for name in clips[0]}
        for video, clips in rows.items()
    }
    for video, row in means.items():
        print(video, json.dumps(row), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(means, indent=1) + "\n")


def read_clips(folder: Path, scratch: Path) -> Iterator[tuple[str, tuple[Events, ...]]]:
    """Yield video and event planes `[N, R, h, w]` of every clip, prepared with the default settings."""
    (scratch / "videos").mkdir()
    (scratch / "videos" / "all").symlink_to(folder.resolve())
    listing = DATASETS["folder"].list_videos(ListingRequest(root=scratch / "videos"))
    prepare(listing, scratch / "shards", PrepareConfig(), num_workers=1)
    for clip in open_shards(scratch / "shards"):
        yield clip.info.video, clip.planes


def measure(planes: tuple[Events, ...]) -> dict[str, float]:
    """Return the kilobytes of each way of packing, and the milliseconds to read the two that shard versions use."""
    shape, plain = planes[0].shape, b"".join(plane.tobytes() for plane in planes)
    stored = pack(planes, "ycc")
    packings = {
        "plain": plain,
        "stored": stored,
        "across": pack([plane.swapaxes(2, 3) for plane in planes], "ycc"),
        "no lone events": pack([without_lone_events(plane) for plane in planes], "ycc"),
        "median": b"".join(pack_half_bytes(median_differences(plane)) for plane in planes),
    }
    small = {name: zstandard.ZstdCompressor(level=1).compress(content) for name, content in packings.items()}
    reading = {
        "plain": lambda: decompress(small["plain"]),
        "stored": lambda: unpack(decompress(small["stored"]), *shape, "ycc"),
    }
    return {f"{name} kB": len(content) / 1e3 for name, content in small.items()} | {
        f"{name} ms": min_milliseconds(read) for name, read in reading.items()
    }


def decompress(content: bytes) -> bytes:
    """Decompress with zstd."""
    return zstandard.ZstdDecompressor().decompress(content)


def min_milliseconds(work: Callable[[], object]) -> float:
    """Return the minimum time of five runs of `work`."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1e3 * min(times)


def without_lone_events(plane: Events) -> Events:
    """Return only the events with another event among their eight neighbours."""
    kept = plane.copy()
    for frame in kept.reshape(-1, *plane.shape[2:]):
        is_event = (frame != 0).astype(np.uint8)
        around = cv2.boxFilter(is_event, cv2.CV_8U, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        frame[around <= 1] = 0
    return kept


def median_differences(plane: Events) -> Events:
    """Return each event minus the median predictor: of left, upper, and left + upper - upper left."""
    padded = np.pad(plane.astype(np.int16), ((0, 0), (0, 0), (1, 0), (1, 0)))
    left, up, corner = padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., :-1, :-1]
    median = np.maximum(np.minimum(left, up), np.minimum(np.maximum(left, up), left + up - corner))
    return (plane - median).astype(np.int8)


def pack_half_bytes(plane: Events) -> bytes:
    """Pack two neighbours of a row into a byte, in columns of four bytes; large values follow at the end."""
    plane = np.pad(plane, ((0, 0), (0, 0), (0, 0), (0, -plane.shape[3] % 8)))
    codes = (plane + np.int8(7)).view(np.uint8)
    small = np.minimum(codes, 15)
    pairs = (small[..., ::2] << 4 | small[..., 1::2]).reshape(-1, plane.shape[3] // 8, 4)
    return pairs.swapaxes(0, 1).tobytes() + codes[codes >= 15].tobytes()


if __name__ == "__main__":
    main()
