"""Schedules: how the learning rate runs over the updates of a training, by the names of timm's schedulers."""

import math
from typing import Any

from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.poly_lr import PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from timm.scheduler.tanh_lr import TanhLRScheduler
from torch.optim import Optimizer

from respike.zoo.train_config import TrainConfig

_NUM_STAIRS = 3
_STAIR = 0.1


def make_scheduler(optimizer: Optimizer, config: TrainConfig, *, num_updates: int) -> Scheduler:
    """Make the schedule of `num_updates` updates and set the rate of the first; a group's `lr_scale` scales its own."""
    num_warmup = int(config.warmup_share * num_updates)
    # timm warns of a schedule of one update, which is as good as none
    num_falling = max(2, num_updates - num_warmup)
    common: dict[str, Any] = {
        "warmup_t": num_warmup,
        # the first update is made at this rate; at 0 it would be wasted
        "warmup_lr_init": config.learning_rate / (num_warmup + 1),
        "warmup_prefix": True,
        "t_in_epochs": False,
    }
    scheduler: Scheduler
    if config.schedule == "cosine":
        scheduler = CosineLRScheduler(optimizer, t_initial=num_falling, **common)
    elif config.schedule == "tanh":
        scheduler = TanhLRScheduler(optimizer, t_initial=num_falling, **common)
    elif config.schedule == "poly":
        scheduler = PolyLRScheduler(optimizer, t_initial=num_falling, **common)
    else:
        stair = math.ceil(num_falling / _NUM_STAIRS)
        rate = _STAIR if config.schedule == "step" else 1.0
        scheduler = StepLRScheduler(optimizer, decay_t=stair, decay_rate=rate, **common)
    # timm applies `lr_scale` when it sets a rate, which without a warm-up it has not done yet
    scheduler.step_update(0)
    return scheduler
