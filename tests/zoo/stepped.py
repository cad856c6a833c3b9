"""One update in float64 by two micro-batches: on two processes with one each, or on one process with both."""

import dataclasses
import os
from pathlib import Path

import torch
from respike.zoo.factory import create_model
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_state import make_accelerator, make_state
from safetensors.torch import save_file
from torch.nn import functional as F

from tests.zoo.batches import make_batch

CONFIG = TrainConfig(learning_rate=0.1, optimizer="momentum", image_size=32, device="cpu", warmup_share=0.0)
MICRO_BATCHES = [make_batch([0, 1, 2]), make_batch([2, 2, 1])]


def take_one_step(path: str, **changes: object) -> None:
    """Save the weights after one update to the file `path`."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)
    accelerator = make_accelerator(config)
    state = make_state(create_model("respike_tiny", num_classes=3).double(), config, accelerator, num_updates=10)
    mine = MICRO_BATCHES if world == 1 else MICRO_BATCHES[rank : rank + 1]
    state.set_train_mode()
    for number, batch in enumerate(mine):
        loss = F.cross_entropy(state.wrapped_model(batch.keys, batch.residuals, batch.color), batch.labels)
        state.backward(loss / len(mine), is_last=number + 1 == len(mine))
    state.update(config.max_grad_norm)
    if rank == 0:
        save_file({name: value.contiguous() for name, value in state.model.named_parameters()}, Path(path))
