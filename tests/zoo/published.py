"""A small network saved and published, now and as earlier versions did."""

from dataclasses import replace
from pathlib import Path

import torch
from respike.common.files import canonical_json, sha256_of_bytes
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
from respike.zoo.factory import create_model
from respike.zoo.nn.respike import ReSpike
from respike.zoo.publishing import publish
from respike.zoo.weights import WeightCard, WeightFile
from safetensors.torch import save

from tests.zoo.batches import make_data_spec

FILES = {"model.safetensors", "card.json", "config.json", "scores.json", "README.md"}
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
    facts = {
        "model": model.config.to_json(),
        "image_size": 32,
        "data": make_data_spec(),
        "training": {"epochs": 2, "batch_size": 32, "learning_rate": 2e-3, "max_grad_norm": None},
        "epoch": 2,
        "scores": {"top1": 0.5, "video_top1": 0.6, "loss": 1.0},
    }
    spec = CheckpointSpec(**(facts | changes))
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


def write_pair(path: Path, model: ReSpike, spec: CheckpointSpec, *, to: str = ".json") -> None:
    """Write a checkpoint as earlier versions did: the spec as JSON beside the weights, or where a crash left it."""
    content = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    path.write_bytes(content)
    name = f"{path.stem}.json" if to == ".json" else f".{path.stem}.json.next"
    path.with_name(name).write_text(pair_json(spec, weights_sha256=sha256_of_bytes(content)))


def pair_json(spec: CheckpointSpec, **changes: object) -> str:
    fields = vars(spec) | {"data": spec.data.to_json(), "train_videos": list(spec.train_videos)} | changes
    text = canonical_json(fields | {"spec_sha256": "0" * 64}, indent=2)
    return text.replace("0" * 64, sha256_of_bytes(text.encode()))


def publish_as_earlier(folder: Path) -> Path:
    """Publish a folder as earlier versions did, with the spec as model.json and on the card."""
    card = publish_small(folder)
    out = folder / "published"
    write_pair(out / "model.safetensors", *load_checkpoint(out))
    paths = [out / "model.safetensors", out / "model.json"]
    files = tuple(WeightFile(name=each.name, num_bytes=each.stat().st_size, sha256=hash_of(each)) for each in paths)
    (out / "card.json").write_text(replace(card, files=files).to_text())
    return out
