"""Train state: network, optimizer, schedule and counters of a training."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]  # mypy does not see timm's export
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # mypy does not see timm's export
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
from respike.zoo.nn.lif import LIF, set_lif_backend
from respike.zoo.nn.respike import ReSpike
from respike.zoo.train_config import TrainConfig

_BACKBONE_PREFIX = "ann."
# the schedule `step` has three parts, each a tenth of the one before
_NUM_STEPS = 3
_STEP_FACTOR = 0.1
_ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
# these change no number of a training
_HARMLESS_VARIABLES = ("ACCELERATE_DEBUG_MODE", "ACCELERATE_CPU_AFFINITY", "ACCELERATE_LOG_LEVEL")


@dataclass(kw_only=True)
class TrainState:
    """Everything that a snapshot saves, besides random generators, to continue a training exactly.

    - `model`: the network; `wrapped_model`: the same weights as accelerate wrapped them; `average`: the moving average
      of the weights, None without one.
    - `epoch`: counted from 1; it is in progress unless `history` holds it. `step`: its batches so far.
    - `sums`: loss times clips, correct clips and clips of the epoch so far, in this process.
    - `seconds`: training time of the epoch in this process; `waited_seconds`: the part spent waiting for the loader.
    - `firing_rates`: of each spiking layer at the end of the epoch.
    - `best_epoch`, `best_rank`: the best epoch so far and its `EpochRecord.rank`.
    - `used_learning_rate`: that of the last update, of all parameters but the backbone's; None before the first.
    - `seen_videos`: hashes of the ids of the videos trained on.
    """

    accelerator: Accelerator
    wrapped_model: nn.Module
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
    used_learning_rate: float | None = None
    seen_videos: set[str] = field(default_factory=set)
    history: list[EpochRecord] = field(default_factory=list)
    is_frozen: bool = False
    is_compiled: bool = False

    @property
    def saved_model(self) -> ReSpike:
        """The network that is validated and saved: the moving average if there is one."""
        if self.average is None:
            return self.model
        averaged: ReSpike = self.average.module
        return averaged

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update, of all parameters but the backbone's."""
        return float(self.optimizer.param_groups[0]["lr"])

    def begin_epoch(self) -> None:
        """Start the next epoch, unless one is in progress."""
        if len(self.history) == self.epoch:
            self.epoch, self.step = self.epoch + 1, 0
            self.sums = torch.zeros(3, device=self.accelerator.device)
            self.seconds, self.waited_seconds, self.firing_rates = 0.0, 0.0, {}

    def freeze_backbone(self, is_frozen: bool) -> None:
        """Stop the training of the ANN branch, or start it again."""
        if is_frozen == self.is_frozen or not self.model.config.uses_keys:
            return
        self.is_frozen = is_frozen
        for parameter in self.model.ann.parameters():
            parameter.requires_grad_(not is_frozen)
        if self.wrapped_model is not self.model:
            # which gradients the processes exchange is decided when the network is wrapped
            self.accelerator.unwrap_model(self.wrapped_model, keep_fp32_wrapper=False)
            self.wrapped_model = self.accelerator.prepare_model(self.model)
            if self.is_compiled:
                _compile(self.wrapped_model)

    def set_train_mode(self) -> None:
        """Put the network into training mode; batch norms of a frozen branch keep their statistics."""
        self.wrapped_model.train()
        if self.is_frozen:
            self.model.ann.eval()

    def backward(self, loss: Tensor, *, is_last: bool = True) -> None:
        """Add the gradients of a scalar `loss`. The processes exchange them if it is the last of an update."""
        exchange: AbstractContextManager[Any]
        exchange = nullcontext() if is_last else self.accelerator.no_sync(self.wrapped_model)
        with exchange:
            self.accelerator.backward(loss)

    def update(self, max_grad_norm: float | None) -> None:
        """Update the weights by the gradients, after clipping them to a global norm of `max_grad_norm`."""
        if max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.wrapped_model.parameters(), max_grad_norm)
        self.used_learning_rate = self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.num_updates += 1
        self.scheduler.step_update(self.num_updates)
        if self.average is not None:
            self.average.update(self.model, step=self.num_updates)

    def share_statistics(self) -> None:
        """Give every process the running statistics of the first one's batch norms, since these are saved."""
        if self.accelerator.num_processes == 1:
            return
        models = [self.model] if self.average is None else [self.model, self.average.module]
        for buffer in (buffer for model in models for buffer in model.buffers()):
            torch.distributed.broadcast(buffer, 0)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return an accelerator for the device and precision of `config`. Raises SettingError if they do not fit."""
    device = resolve_device(config.device)
    check_amp(device, config.amp)
    if config.sync_batchnorm and device.type != "cuda":
        raise SettingError(f"sync_batchnorm is for CUDA, the device is {device.type}", "train without it")
    if config.lif_backend == "triton" and device.type != "cuda":
        raise SettingError(f"lif_backend 'triton' is for CUDA, the device is {device.type}", "take torch or auto")
    # otherwise accelerate keeps the device and precision of the first training in this process
    AcceleratorState._reset_state(reset_partial_state=True)
    with _hide_environment():
        return Accelerator(cpu=device.type == "cpu", mixed_precision=config.amp)


def describe_ignored_environment(config: TrainConfig) -> str:
    """Return a warning about variables for accelerate that ask for other settings than `config`; empty without any."""
    asked = {name: value for name, value in os.environ.items() if _is_hidden(name)}
    recorded = {
        "ACCELERATE_MIXED_PRECISION": config.amp,
        _ACCUMULATION: str(config.accumulation_steps),
        "ACCELERATE_USE_CPU": str(resolve_device(config.device).type == "cpu").lower(),
    }
    # `accelerate launch` always sets some variables to the first of these values
    neutral = ("no", "false", "default", "none", "0", "")
    other = [
        f"{name}={value}"
        for name, value in sorted(asked.items())
        if value.lower() not in (*neutral, recorded.get(name)) and (name, value) != (_ACCUMULATION, "1")
    ]
    if not other:
        return ""
    return f"ignored, because the settings of the run decide: {', '.join(other)}"


@contextmanager
def _hide_environment() -> Iterator[None]:
    """Hide the variables that would change how accelerate trains."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if _is_hidden(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _is_hidden(name: str) -> bool:
    return name.startswith("ACCELERATE_") and name not in _HARMLESS_VARIABLES


def make_state(
    model: ReSpike,
    config: TrainConfig,
    accelerator: Accelerator,
    *,
    num_updates: int,
    seen_videos: Iterable[str] = (),
) -> TrainState:
    """Return the state of a new training of `num_updates` updates. Moves `model` to the accelerator's device."""
    if config.sync_batchnorm:
        convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.to(accelerator.device)
    model.uses_activation_checkpointing = config.gradient_checkpointing
    set_lif_backend(model, config.lif_backend)
    optimizer = create_optimizer_v2(
        make_param_groups(model, config),
        opt=config.optimizer,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
    )
    scheduler = make_scheduler(optimizer, config, num_updates=num_updates)
    # a copy must be made before accelerate wraps the forward method
    average = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
    wrapped_model, wrapped_optimizer = accelerator.prepare(model, optimizer)
    if config.compile:
        _compile(wrapped_model)
    return TrainState(
        accelerator=accelerator,
        wrapped_model=wrapped_model,
        model=model,
        optimizer=wrapped_optimizer,
        scheduler=scheduler,
        average=average,
        seen_videos=set(seen_videos),
        is_compiled=config.compile,
    )


def _compile(model: nn.Module) -> None:
    # all batches of a training have the same size
    model.compile(dynamic=False)


def make_param_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups: one for each pair of learning rate and weight decay.

    Time constants that neurons learn have no weight decay: it would pull every τ to 2, where the parameter is 0.
    """
    time_constants = {id(each) for layer in model.modules() if isinstance(layer, LIF) for each in layer.parameters()}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        is_scaled = config.backbone_lr_scale != 1 and name.startswith(_BACKBONE_PREFIX)
        is_undecayed = id(parameter) in time_constants or (not config.decay_norms and parameter.dim() <= 1)
        group = groups.setdefault((is_scaled, is_undecayed), {"params": []})
        if is_scaled:
            group["lr_scale"] = config.backbone_lr_scale
        if is_undecayed:
            group["weight_decay"] = 0.0
        group["params"].append(parameter)
    # the backbone last: the first group's rate is the one that is reported
    return [groups[key] for key in sorted(groups)]


def make_scheduler(optimizer: Optimizer, config: TrainConfig, *, num_updates: int) -> Scheduler:
    """Return the learning rate schedule of `num_updates` updates, with the first rate set.

    The rate of a parameter group is multiplied by its `lr_scale`, if it has one.
    """
    num_warmup = int(config.warmup_share * num_updates)
    # timm warns about a schedule of a single update
    num_rest = max(2, num_updates - num_warmup)
    common: dict[str, Any] = {
        "warmup_t": num_warmup,
        # at a rate of 0 the first update would be wasted
        "warmup_lr_init": config.learning_rate / (num_warmup + 1),
        "warmup_prefix": True,
        "t_in_epochs": False,
    }
    scheduler: Scheduler
    if config.schedule == "cosine":
        scheduler = CosineLRScheduler(optimizer, t_initial=num_rest, **common)
    elif config.schedule == "tanh":
        scheduler = TanhLRScheduler(optimizer, t_initial=num_rest, **common)
    elif config.schedule == "poly":
        scheduler = PolyLRScheduler(optimizer, t_initial=num_rest, **common)
    else:
        factor = _STEP_FACTOR if config.schedule == "step" else 1.0
        decay_t = math.ceil(num_rest / _NUM_STEPS)
        scheduler = StepLRScheduler(optimizer, decay_t=decay_t, decay_rate=factor, **common)
    # without a warm-up timm has not applied `lr_scale` yet
    scheduler.step_update(0)
    return scheduler
