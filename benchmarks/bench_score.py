"""How long a clip takes from its shard to the networks' answers: one alone, and as `respike score` goes through many.

    python benchmarks/bench_score.py [--models respike_tiny respike_r18 ...] [--device cpu] [--rounds 3] [--json PATH]

Clips of 16 frames of UCF101's kind, centre crops: 224 x 224, 64 x 64 for `respike_tiny`. `alone` reads one clip,
answers it and waits for the answer: the latency. `score` is `respike.zoo.score` in batches of 4.
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

SIZES, USUAL_SIZE = {"respike_tiny": 64}, 224
NUM_CLASSES, NUM_CLIPS, BATCH_SIZE = 101, 4, 4


def main() -> None:
    """Make shards of one clip, answer them with each network, publish one table a network."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(arguments.threads)
    keep_memory()
    with tempfile.TemporaryDirectory() as scratch:
        shards = prepare_clips(Path(scratch))
        for name in arguments.models:
            comparison = compare(name, shards, arguments)
            path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{name}")
            harness.publish(comparison, path)


def prepare_clips(scratch: Path) -> ShardDataset:
    """Shards of `NUM_CLIPS` clips."""
    video = natural.make_natural_clip(scratch, "ucf101")
    ref = VideoRef(video_id=video.name, path=video, label=0, class_name="c0", subset="test")
    classes = tuple(f"c{number}" for number in range(NUM_CLASSES))
    listing = VideoListing(dataset="bench", split=None, evaluation_subset="test", classes=classes, videos=(ref,))
    prepare(listing, scratch / "shards", PrepareConfig(), num_workers=1)
    return open_shards(scratch / "shards").select(range(NUM_CLIPS))


def compare(name: str, shards: ShardDataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one network."""
    model = create_model(name, num_classes=NUM_CLASSES).to(arguments.device).eval()
    size = SIZES.get(name, USUAL_SIZE)
    one, many = (
        make_loader(shards, batch_size=batch_size, training=False, image_size=size) for batch_size in (1, BATCH_SIZE)
    )

    def read() -> None:
        for _ in one:
            pass

    def answer_alone() -> None:
        with torch.inference_mode():
            for batch in one:
                moved = batch.to(arguments.device)
                model(moved.keys, moved.residuals, moved.color).softmax(dim=1).cpu()

    def answer_many() -> None:
        score(model, many, num_classes=NUM_CLASSES, device=arguments.device)

    contenders = {"alone": answer_alone, "score": answer_many, "reading alone": read}
    return harness.compare(
        f"latency {name}",
        contenders,
        baseline="alone",
        rounds=arguments.rounds,
        units=dict.fromkeys(contenders, NUM_CLIPS),
        unit="clip",
        facts={"pixels": f"{size} x {size}", "device": arguments.device, "threads": torch.get_num_threads()},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What runs where."""
    parser.add_argument("--models", nargs="+", default=["respike_tiny", "respike_r18", "respike_r50"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    parser.set_defaults(rounds=3)


if __name__ == "__main__":
    main()
