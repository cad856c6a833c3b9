"""What the contrast threshold θ costs and brings: density and bytes of real and made clips, and what an SNN learns.

    python benchmarks/study_threshold.py --clips FOLDER --json threshold.json

The demo's videos are prepared at each θ; the spiking branch of `respike_tiny` alone is trained on few of them for few
epochs, so that it does not reach everything, with several seeds, and asked for the motion of held-out clips (chance
25 %).
`--clips` names a folder of videos whose density and bytes are measured beside.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from respike.data import make_loader, open_shards
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.preparation import PrepareConfig, prepare
from respike.data.synthetic import DemoSettings, demo_classes, write_demo
from respike.types import VideoListing, VideoRef
from respike.workflows.training import make_train_loader
from respike.zoo.factory import create_model
from respike.zoo.recipe import read_recipe
from respike.zoo.scoring import score
from respike.zoo.trainer import fit


def main() -> None:
    """Go through the thresholds and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thresholds", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each; 0 measures sizes alone")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train-videos", type=int, default=4, help="a class, 15 clips each")
    parser.add_argument("--clips", type=Path, help="a folder of real videos")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_demo(root / "videos", DemoSettings(train_videos=arguments.train_videos), num_workers=2)
        listing = DATASETS.get("demo").list_videos(ListingRequest(root=root / "videos"))
        real = None if arguments.clips is None else list_clips(arguments.clips)
        for threshold in arguments.thresholds:
            row = measure(threshold, listing, real, root, arguments)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(
    threshold: int, listing: VideoListing, real: VideoListing | None, root: Path, arguments: argparse.Namespace
) -> dict[str, float]:
    """Prepare at one threshold, train with each seed; accuracies as shares, sizes in kilobytes a clip."""
    settings = PrepareConfig(threshold=threshold, videos_per_shard=8)
    out = root / f"threshold{threshold}"
    made = prepare(listing, out, settings, num_workers=2)
    row: dict[str, float] = {
        "threshold": threshold,
        "density": made.event_density,
        "kilobytes": round(made.num_bytes / made.num_clips / 1e3, 2),
    }
    if real is not None:
        found = prepare(real, root / f"real{threshold}", settings, num_workers=2)
        row["real_density"] = found.event_density
        row["real_kilobytes"] = round(found.num_bytes / found.num_clips / 1e3, 1)
    accuracies = [learn_motion(out, seed, arguments.epochs, root) for seed in range(arguments.seeds)]
    if accuracies:
        row["motion_mean"] = round(statistics.mean(accuracies), 4)
        row["motion_deviation"] = round(statistics.stdev(accuracies), 4) if len(accuracies) > 1 else 0.0
    return row


def learn_motion(shards: Path, seed: int, epochs: int, scratch: Path) -> float:
    """Train the spiking branch; return the share of held-out clips whose motion it names, whatever their prop."""
    config = read_recipe("demo16").override({"seed": seed, "epochs": epochs}).training
    train, test = open_shards(shards, "train"), open_shards(shards, "test")
    torch.manual_seed(seed)
    model = create_model("respike_tiny", num_classes=len(train.spec.classes), branches="snn")
    loader = make_train_loader(train, config, num_workers=0)
    with tempfile.TemporaryDirectory(dir=scratch) as run:
        fit(model, loader, config, out=Path(run) / "run", data=train.spec)
    held_out = make_loader(test, batch_size=64, training=False, image_size=config.image_size)
    confusion = score(model, held_out, num_classes=len(train.spec.classes)).confusion
    motions = [name.partition("-")[2] for name in demo_classes()]
    right = sum(
        int(confusion[true, said])
        for true in range(len(motions))
        for said in range(len(motions))
        if motions[true] == motions[said]
    )
    return right / len(test)


def list_clips(folder: Path) -> VideoListing:
    """All files of a folder as one class."""
    videos = [
        VideoRef(video_id=path.name, path=path, label=0, class_name="clip", subset="test")
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    return VideoListing(dataset="clips", split=None, evaluation_subset="test", classes=("clip",), videos=tuple(videos))


if __name__ == "__main__":
    main()
