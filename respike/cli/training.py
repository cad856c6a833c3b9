"""Training run: from shards and settings to a run folder, as `respike train` and the demo make it."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respike.cli.defaults import choose_num_workers, choose_run_folder, find_data
from respike.errors import RespikeError
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from respike.data import ShardDataset
    from respike.progress import Progress
    from respike.sample import BatchSource
    from respike.zoo.nn.backbone import BackboneWeights
    from respike.zoo.nn.respike import Branches
    from respike.zoo.train import TrainResult, Validate

_VALIDATION_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What was asked for; None is for a default that hangs on what lies on disk."""

    data: str | None
    model: str
    branches: "Branches"
    init_backbone: "BackboneWeights"
    is_batch_size_given: bool
    num_workers: int | None
    out: Path | None
    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What there is to tell afterwards."""

    result: "TrainResult"
    num_train_clips: int
    num_validation_clips: int

    def to_json(self) -> dict[str, Any]:
        """The outcome as `respike train --json` prints it."""
        best = self.result.history[self.result.best_epoch - 1]
        return {
            "out": str(self.result.out),
            "best": str(self.result.best),
            "last": str(self.result.last),
            "best_epoch": self.result.best_epoch,
            "num_epochs": len(self.result.history),
            "num_train_clips": self.num_train_clips,
            "num_validation_clips": self.num_validation_clips,
            "train_loss": best.train_loss,
            "train_accuracy": best.train_accuracy,
            "validation": dict(best.validation),
        }


def run_training(request: TrainRequest, progress: "Progress") -> TrainOutcome:
    """Open the data, build the network, train it and draw the curves."""
    import torch

    from respike.cli.curves import draw_curves
    from respike.data import open_shards
    from respike.zoo.device import resolve_device
    from respike.zoo.models import create_model
    from respike.zoo.train import fit

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RespikeError("respike train runs as one process", "start it without torchrun, or call respike.zoo.fit")
    train_part, held_out = open_shards(find_data(request.data), "train").hold_out(_VALIDATION_SHARE)
    request = _fit_batch_size(request, len(train_part), progress)
    config, data = request.config, train_part.spec
    if len(data.classes) < 2:
        raise RespikeError(f"the data has one class, {data.classes[0]}", "prepare videos of at least two classes")
    if not len(held_out):
        progress.warn("every class has a single source video: nothing is held out, and the best epoch is the last")
    num_workers = choose_num_workers(request.num_workers, resolve_device(config.device).type)
    torch.manual_seed(config.seed)
    model = create_model(
        request.model,
        num_classes=len(data.classes),
        branches=request.branches,
        backbone_weights=request.init_backbone,
    )
    out = choose_run_folder(request.out, request.model, data)
    progress.say(f"{len(train_part):,} clips to train on, {len(held_out):,} held out to validate; run folder {out}")
    result = fit(
        model,
        _make_train_loader(train_part, config, num_workers),
        config,
        out=out,
        data=data,
        validate=_make_validation(held_out, config, num_workers) if len(held_out) else None,
        progress=progress,
    )
    draw_curves(result.history, out / "curves.png", metric=config.best_metric)
    return TrainOutcome(result=result, num_train_clips=len(train_part), num_validation_clips=len(held_out))


def _fit_batch_size(request: TrainRequest, num_clips: int, progress: "Progress") -> TrainRequest:
    """Bring the default batch size, never one that was asked for, down to what there is."""
    if request.is_batch_size_given or num_clips >= request.config.batch_size or not num_clips:
        return request
    progress.say(f"batch size {num_clips} instead of {request.config.batch_size}: there are no more clips")
    return dataclasses.replace(request, config=dataclasses.replace(request.config, batch_size=num_clips))


def _make_train_loader(dataset: "ShardDataset", config: TrainConfig, num_workers: int) -> "BatchSource":
    from respike.data import make_loader

    return make_loader(
        dataset,
        batch_size=config.batch_size,
        training=True,
        image_size=config.image_size,
        num_workers=num_workers,
        seed=config.seed,
        flip=config.flip,
        crop_scale=config.crop_scale,
    )


def _make_validation(dataset: "ShardDataset", config: TrainConfig, num_workers: int) -> "Validate":
    from respike.data import make_loader
    from respike.zoo.scoring import score

    loader = make_loader(
        dataset,
        batch_size=config.batch_size,
        training=False,
        image_size=config.image_size,
        num_workers=num_workers,
    )

    def validate(model: "nn.Module") -> dict[str, float]:
        device = next(model.parameters()).device
        return score(model, loader, num_classes=len(dataset.spec.classes), device=device).to_flat()

    return validate
