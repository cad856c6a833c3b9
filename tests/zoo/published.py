"""A small network, published: what the tests of cards, catalog and publishing share."""

from pathlib import Path

import torch
from respike.common.files import sha256_of_bytes
from respike.zoo.checkpoint import CheckpointSpec, save_checkpoint
from respike.zoo.factory import create_model
from respike.zoo.publishing import publish
from respike.zoo.weights import WeightCard

from tests.zoo.batches import make_data_spec

FILES = {"model.safetensors", "model.json", "card.json", "config.json", "scores.json", "README.md"}
SCORES = {
    "clip": {"top1": 0.75, "top5": 1.0, "mean_class_accuracy": 0.7},
    "video": {"top1": 0.8, "top5": 1.0, "mean_class_accuracy": 0.75},
    "num_clips": 40,
    "num_videos": 10,
    "fingerprint": "f" * 64,
    "forced": False,
}


def save_small(folder: Path, **changes: object) -> Path:
    """A checkpoint of a network of few parameters."""
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=3, branches="snn")
    spec = CheckpointSpec(
        model=model.config.to_json(),
        image_size=32,
        data=make_data_spec(),
        training={"epochs": 2, "batch_size": 32, "learning_rate": 2e-3, "max_grad_norm": None},
        epoch=2,
        scores={"top1": 0.5, "video_top1": 0.6, "loss": 1.0},
        **changes,
    )
    path = folder / "best.safetensors"
    save_checkpoint(path, model, spec)
    return path


def publish_small(folder: Path, **changes: object) -> WeightCard:
    """Save and publish it to `folder/published`."""
    settings = {
        "name": "respike_tiny.test",
        "licence": "Apache-2.0",
        "command": "respike train --epochs 2",
        "scores": SCORES,
        "score_command": "respike score runs/x",
    }
    return publish(save_small(folder), folder / "published", **(settings | changes))


def files_at(folder: Path, where: str) -> dict[str, bytes]:
    """The files of a published folder by the paths that a web server gives them."""
    return {f"{where}/{path.name}": path.read_bytes() for path in folder.iterdir()}


def hash_of(path: Path) -> str:
    return sha256_of_bytes(path.read_bytes())
