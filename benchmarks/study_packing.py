"""How small events could be, and what reading them would then cost: other ways of packing them, on a folder of clips.

    python benchmarks/study_packing.py --clips FOLDER --json packing.json

Each clip's events are packed anew and compressed at zstd level 1, as shards are. Bytes are kilobytes a clip; `ms` is
what undoing the differences to the left would add to the reading of a clip, on one thread.

- stored: as shards hold them.
- no lone events: those without a neighbour in their plane dropped, as event cameras' noise filters do.
- rows paired: two rows in one byte, four bits each; what does not fit stands apart.
- left, rows paired: the same of differences to the left neighbour.
- median, rows paired: the same of what the median predictor of JPEG-LS leaves.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray
from respike.data import open_shards
from respike.data.layouts import LAYOUTS, ListingRequest
from respike.data.prepare import PrepareSettings, prepare

Events = NDArray[np.int8]
_LARGEST = 15


def main() -> None:
    """Print one row a video: the mean over its clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="a folder of videos")
    parser.add_argument("--json", type=Path, help="where to write the figures")
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
    """The event planes `[N R, h, w]` of every clip of the videos, prepared with the default settings."""
    (scratch / "videos").mkdir()
    (scratch / "videos" / "all").symlink_to(folder.resolve())
    listing = LAYOUTS.get("folder").list_videos(ListingRequest(root=scratch / "videos"))
    prepare(listing, scratch / "shards", PrepareSettings(), num_workers=1)
    for clip in open_shards(scratch / "shards"):
        yield clip.info.video, tuple(plane.reshape(-1, *plane.shape[2:]) for plane in clip.planes)


def measure(planes: tuple[Events, ...]) -> dict[str, float]:
    """Kilobytes of each way of packing, and the milliseconds of undoing differences to the left."""
    kept = tuple(without_lone_events(plane) for plane in planes)
    ways: dict[str, Callable[[Events], Events]] = {
        "rows paired": lambda plane: plane,
        "left, rows paired": left_differences,
        "median, rows paired": median_differences,
    }
    sizes = {"stored": compressed(*planes), "no lone events": compressed(*kept)}
    for name, change in ways.items():
        pairs, rest = zip(*(paired_rows(change(plane)) for plane in planes), strict=True)
        sizes[name] = compressed(*pairs) + compressed(*rest)
    return {name: size / 1e3 for name, size in sizes.items()} | {"ms": undoing_milliseconds(planes)}


def compressed(*arrays: NDArray[Any]) -> int:
    """Bytes that the arrays take, one after another, at the level of shards."""
    return len(zstandard.ZstdCompressor(level=1).compress(np.concatenate([part.ravel() for part in arrays]).tobytes()))


def without_lone_events(plane: Events) -> Events:
    """The events that have another one among their eight neighbours."""
    left = plane.copy()
    for frame in left:
        is_event = (frame != 0).astype(np.uint8)
        around = cv2.boxFilter(is_event, cv2.CV_8U, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        frame[around <= 1] = 0
    return left


def left_differences(plane: Events) -> Events:
    """Each event less its left neighbour."""
    return np.diff(plane, axis=2, prepend=np.int8(0))


def median_differences(plane: Events) -> Events:
    """Each event less the median of its left neighbour, its upper one, and their sum less the one between."""
    padded = np.pad(plane.astype(np.int16), ((0, 0), (1, 0), (1, 0)))
    left, up, corner = padded[:, 1:, :-1], padded[:, :-1, 1:], padded[:, :-1, :-1]
    median = np.maximum(np.minimum(left, up), np.minimum(np.maximum(left, up), left + up - corner))
    return (plane - median).astype(np.int8)


def paired_rows(plane: Events) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two rows a byte, the sign in the lowest bit of each half; and the values that do not fit."""
    plane = np.pad(plane, ((0, 0), (0, plane.shape[1] % 2), (0, 0)))
    folded = ((plane << 1) ^ (plane >> 7)).view(np.uint8)
    halves = np.minimum(folded, _LARGEST)
    return halves[:, ::2] | halves[:, 1::2] << 4, folded[folded >= _LARGEST]


def undoing_milliseconds(planes: tuple[Events, ...]) -> float:
    """The least of five times that adding up the differences along rows takes."""
    changed = [left_differences(plane) for plane in planes]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for plane in changed:
            np.add.accumulate(plane, axis=2, dtype=np.int8)
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


if __name__ == "__main__":
    main()
