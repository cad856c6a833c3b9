"""Time from a shard to the probabilities of a clip: one clip at a time, and in batches as in `respike score`.

    python benchmarks/bench_score.py [--models respike_tiny respike_r18 ...] [--device cpu] [--rounds 3] [--json PATH]

The clips have 16 frames of a UCF101-like video, with centre crops of 224 x 224, or 64 x 64 for `respike_tiny`. `one
clip` reads one clip, classifies it and waits for the result: the latency. `score` is `respike.zoo.score` in batches of
4. `reading` reads clips one at a time without a network.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import torch
from respike.common.processes import keep_memory
from respike.data import make_loader, open_shards
from respike.data.dataset import ShardDataset
from respike.data.preparation import PrepareConfig, prepare
from respike.types import VideoListing, VideoRef
from respike.zoo import create_model, score

import harness
import natural

IMAGE_SIZES, DEFAULT_IMAGE_SIZE = {"respike_tiny": 64}, 224
NUM_CLASSES, NUM_CLIPS, BATCH_SIZE = 101, 4, 4


def main() -> None:
    """Make the shards; measure and report each network."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(arguments.threads)
    keep_memory()
    with tempfile.TemporaryDirectory() as scratch:
        shards = prepare_clips(Path(scratch))
        for name in arguments.models:
            comparison = compare(name, shards, arguments)
            path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{name}")
            harness.report(comparison, path)


def prepare_clips(scratch: Path) -> ShardDataset:
    """Write shards and return `NUM_CLIPS` of their clips."""
    video = natural.make_natural_clip(scratch, "ucf101")
    ref = VideoRef(video_id=video.name, path=video, label=0, class_name="c0", subset="test")
    classes = tuple(f"c{number}" for number in range(NUM_CLASSES))
    listing = VideoListing(dataset="bench", split=None, evaluation_subset="test", classes=classes, videos=(ref,))
    prepare(listing, scratch / "shards", PrepareConfig(), num_workers=1)
    return open_shards(scratch / "shards").select(range(NUM_CLIPS))


def compare(name: str, shards: ShardDataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one network."""
    model = create_model(name, num_classes=NUM_CLASSES).to(arguments.device).eval()
    size = IMAGE_SIZES.get(name, DEFAULT_IMAGE_SIZE)
    one, many = (
        make_loader(shards, batch_size=batch_size, training=False, image_size=size) for batch_size in (1, BATCH_SIZE)
    )

    def read() -> None:
        for _ in one:
            pass

    def classify_one() -> None:
        with torch.inference_mode():
            for batch in one:
                moved = batch.to(arguments.device)
                model(moved.keys, moved.residuals, moved.color).softmax(dim=1).cpu()

    def classify_many() -> None:
        score(model, many, num_classes=NUM_CLASSES, device=arguments.device)

    variants = {"one clip": classify_one, "score": classify_many, "reading": read}
    return harness.compare(
        f"latency {name}",
        variants,
        baseline="one clip",
        rounds=arguments.rounds,
        units=dict.fromkeys(variants, NUM_CLIPS),
        unit="clip",
        facts={"pixels": f"{size} x {size}", "device": arguments.device, "threads": torch.get_num_threads()},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--models", nargs="+", default=["respike_tiny", "respike_r18", "respike_r50"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    parser.set_defaults(rounds=3)


if __name__ == "__main__":
    main()
