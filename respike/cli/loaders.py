"""Loaders of a training run: what its settings make of shards, for the process that this is."""

from typing import TYPE_CHECKING

from respike.cli.ranks import num_processes, process_index
from respike.cli.stopping import StopSignals
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from respike.batch_source import BatchSource
    from respike.data import ShardDataset
    from respike.zoo.train import Validate


def make_train_loader(dataset: "ShardDataset", config: TrainConfig, num_workers: int) -> "BatchSource":
    """Batches to train on, this process's own."""
    from respike.data import make_loader

    return make_loader(
        dataset,
        batch_size=config.batch_size,
        training=True,
        image_size=config.image_size,
        num_workers=num_workers,
        seed=config.seed,
        flip=config.flip,
        crop=config.crop,
        crop_scale=config.crop_scale,
        crop_sides=config.crop_sides,
        epoch_clips=config.epoch_clips,
        rank=process_index(),
        world_size=num_processes(),
    )


def make_validation(dataset: "ShardDataset", config: TrainConfig, num_workers: int, signals: StopSignals) -> "Validate":
    """A function that scores a network on `dataset`, all processes together, and ends once a signal has come."""
    from respike.data import make_loader
    from respike.zoo.scoring import score

    loader = make_loader(
        dataset,
        batch_size=config.batch_size,
        training=False,
        image_size=config.image_size,
        eval_crop=config.eval_crop,
        num_workers=num_workers,
        rank=process_index(),
        world_size=num_processes(),
    )
    watched = signals.watch(loader)

    def validate(model: "nn.Module") -> dict[str, float]:
        return score(model, watched, num_classes=len(dataset.spec.classes)).to_flat()

    return validate
