"""Train state: model, optimizer, schedule and counters of a training."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]  # exported, without saying so to mypy
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # timm exports it, without saying so to mypy
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.poly_lr import PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from timm.scheduler.tanh_lr import TanhLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from respike.common.errors import SettingError
from respike.zoo.device import check_amp, resolve_device
from respike.zoo.history import EpochRecord
from respike.zoo.nn.lif import set_lif_backend
from respike.zoo.nn.respike import ReSpike
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


_BACKBONE = "ann."


@dataclass(kw_only=True)
class TrainState:
    """What has to be saved, with the random numbers' states, to go on exactly from here.

    `prepared` is the network as accelerate wrapped it, `model` the same weights unwrapped, `average` their moving
    average. `epoch` counts from 1 and is under way unless `history` holds it; `step` counts its batches so far, `sums`
    holds the epoch's loss, hits and clips of this process, `seconds` and `waited_seconds` its training time and that
    part of it in which the loader was waited for, `firing_rates` what its end gave. `best_rank` orders epochs: the
    best has the greatest. `seen_videos` are hashes of the videos' ids.
    """

    accelerator: Accelerator
    prepared: nn.Module
    model: ReSpike
    optimizer: Optimizer
    scheduler: Scheduler
    average: ModelEmaV3 | None
    epoch: int = 0
    step: int = 0
    num_updates: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(3))
    seconds: float = 0.0
    waited_seconds: float = 0.0
    firing_rates: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    best_rank: tuple[float, float] = (float("-inf"), float("-inf"))
    seen_videos: set[str] = field(default_factory=set)
    history: list[EpochRecord] = field(default_factory=list)
    is_frozen: bool = False

    @property
    def saved_model(self) -> ReSpike:
        """The weights that are validated and saved."""
        if self.average is None:
            return self.model
        averaged: ReSpike = self.average.module
        return averaged

    @property
    def learning_rate(self) -> float:
        """The rate of the next update, of all but the backbone."""
        return float(self.optimizer.param_groups[0]["lr"])

    def begin_epoch(self) -> None:
        """Start the next epoch, unless one is under way."""
        if len(self.history) == self.epoch:
            self.epoch, self.step = self.epoch + 1, 0
            self.sums = torch.zeros(3, device=self.accelerator.device)
            self.seconds, self.waited_seconds, self.firing_rates = 0.0, 0.0, {}

    def freeze(self, is_frozen: bool) -> None:
        """Hold the ANN branch still, or let it learn (again)."""
        if is_frozen == self.is_frozen or not self.model.config.uses_keys:
            return
        self.is_frozen = is_frozen
        for parameter in self.model.ann.parameters():
            parameter.requires_grad_(not is_frozen)
        if self.prepared is not self.model:
            # what is sent between processes was settled when the network was wrapped
            self.accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False)
            self.prepared = self.accelerator.prepare_model(self.model)

    def to_training(self) -> None:
        """Put the network into training mode; the norms of a frozen branch keep their statistics."""
        self.prepared.train()
        if self.is_frozen:
            self.model.ann.eval()

    def backward(self, loss: Tensor, *, is_last: bool = True) -> None:
        """Add the gradient of a scalar `loss`; with `is_last` the processes then exchange it."""
        waiting: AbstractContextManager[Any] = nullcontext() if is_last else self.accelerator.no_sync(self.prepared)
        with waiting:
            self.accelerator.backward(loss)

    def update(self, max_grad_norm: float | None) -> None:
        """Take one step down the gradient that has gathered."""
        if max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.prepared.parameters(), max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.num_updates += 1
        self.scheduler.step_update(self.num_updates)
        if self.average is not None:
            self.average.update(self.model, step=self.num_updates)

    def share_statistics(self) -> None:
        """Give every process the norms' running statistics of the first, which are the ones that are saved."""
        if self.accelerator.num_processes == 1:
            return
        models = [self.model] if self.average is None else [self.model, self.average.module]
        for buffer in (buffer for model in models for buffer in model.buffers()):
            torch.distributed.broadcast(buffer, 0)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return an accelerator for the device and precision of `config`. Raises SettingError where they do not go."""
    device = resolve_device(config.device)
    check_amp(device, config.amp)
    if config.sync_batchnorm and device.type != "cuda":
        raise SettingError(f"sync_batchnorm is for CUDA, the device is {device.type}", "train without it")
    if config.lif_backend == "triton" and device.type != "cuda":
        raise SettingError(f"lif_backend 'triton' is for CUDA, the device is {device.type}", "take torch or auto")
    # accelerate keeps the device and precision of its first use for the whole process; each run has its own
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=config.amp)


def make_state(
    model: ReSpike,
    config: TrainConfig,
    accelerator: Accelerator,
    *,
    num_updates: int,
    seen_videos: Iterable[str] = (),
) -> TrainState:
    """Begin a training of `num_updates` updates with `model`, which moves to the accelerator's device."""
    if config.sync_batchnorm:
        convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.to(accelerator.device)
    model.recomputes = config.gradient_checkpointing
    set_lif_backend(model, config.lif_backend)
    optimizer = create_optimizer_v2(
        make_param_groups(model, config),
        opt=config.optimizer,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
    )
    scheduler = make_scheduler(optimizer, config, num_updates=num_updates)
    # copied before accelerate wraps the network's forward
    average = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    if config.compile:
        # a training's batches are all of one size
        prepared.compile(dynamic=False)
    return TrainState(
        accelerator=accelerator,
        prepared=prepared,
        model=model,
        optimizer=prepared_optimizer,
        scheduler=scheduler,
        average=average,
        seen_videos=set(seen_videos),
    )


def make_param_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Sort parameters into groups by their learning rate and weight decay; one group where all share both."""
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        is_slow = config.backbone_lr_scale != 1 and name.startswith(_BACKBONE)
        is_undecayed = not config.decay_norms and parameter.dim() <= 1
        group = groups.setdefault((is_slow, is_undecayed), {"params": []})
        if is_slow:
            group["lr_scale"] = config.backbone_lr_scale
        if is_undecayed:
            group["weight_decay"] = 0.0
        group["params"].append(parameter)
    # the fresh part first: its rate is the one that is told
    return [groups[key] for key in sorted(groups)]
