"""Difference between the default residuals and the exact RGB residuals of the paper, and the size of both.

    python benchmarks/study_exact.py --clips FOLDER

All videos of the folder are prepared with default settings and with `--color rgb --threshold 1`. The residuals are
compared as a network sees them, at 224 pixels.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

from respike.data import ShardDataset, make_loader, open_shards
from respike.data.preparation import PrepareConfig, prepare
from respike.types import VideoListing
from respike.zoo import create_model

from study_threshold import list_clips

SETTINGS = {"default": PrepareConfig(), "exact": PrepareConfig(color="rgb", threshold=1)}


def main() -> None:
    """Print the sizes, and mean |difference| / mean |residual| of each video and of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of real videos")
    listing = list_clips(parser.parse_args().clips)
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {name: measure_size(listing, Path(scratch) / name, settings) for name, settings in SETTINGS.items()}
        shares = compare(*(open_shards(Path(scratch) / name, "test") for name in SETTINGS))
    print(json.dumps({"kilobytes a clip": sizes, "ratio": sizes["exact"] / sizes["default"], "difference": shares}))


def measure_size(listing: VideoListing, out: Path, settings: PrepareConfig) -> float:
    """Prepare the videos; return the kilobytes of a clip."""
    made = prepare(listing, out, settings, num_workers=1)
    return made.num_bytes / made.num_clips / 1e3


def compare(default: ShardDataset, exact: ShardDataset) -> dict[str, float]:
    """Return mean |difference| / mean |exact residual| of each video and of all."""
    model = create_model("respike_tiny", num_classes=2)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    loaders = (make_loader(clips, batch_size=1, training=False, image_size=224) for clips in (default, exact))
    for batches in zip(*loaders, strict=True):
        found, wanted = (model.normalise(batch.keys, batch.residuals, batch.color)[1] for batch in batches)
        for name in (batches[0].video_ids[0], "all"):
            sums[name][0] += float((found - wanted).abs().sum())
            sums[name][1] += float(wanted.abs().sum())
    return {name: difference / size for name, (difference, size) in sums.items()}


if __name__ == "__main__":
    main()
