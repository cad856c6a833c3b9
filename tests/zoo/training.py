"""A small training: two epochs of two batches, with a network for 32-pixel images."""

from collections.abc import Callable
from pathlib import Path

import torch
from respike.zoo.factory import create_model
from respike.zoo.nn.respike import ReSpike
from respike.zoo.train_config import TrainConfig
from respike.zoo.trainer import TrainResult, fit
from torch import nn

from tests.zoo.batches import Batches, Notes, make_batch, make_data_spec

CONFIG = TrainConfig(epochs=2, batch_size=3, learning_rate=2e-3, image_size=32, device="cpu")


def make_model(seed: int = 0) -> ReSpike:
    torch.manual_seed(seed)
    return create_model("respike_tiny", num_classes=3)


def make_source(num_batches: int = 2) -> Batches:
    batches = [make_batch([0, 1, 2], videos=[f"t/{n}-{row}" for row in range(3)]) for n in range(num_batches)]
    return Batches(batches)


def train(
    out: Path,
    *,
    config: TrainConfig = CONFIG,
    model: ReSpike | None = None,
    source: Batches | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    progress: Notes | None = None,
) -> TrainResult:
    return fit(
        model or make_model(),
        make_source() if source is None else source,
        config,
        out=out,
        data=make_data_spec(),
        validate=validate,
        progress=Notes() if progress is None else progress,
    )
