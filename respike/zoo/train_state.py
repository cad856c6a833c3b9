"""Train state: all that a training carries from one update to the next, and how it begins."""

from dataclasses import dataclass, field

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # timm exports it, without saying so to mypy
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from respike.errors import SettingError
from respike.zoo.device import resolve_device
from respike.zoo.history import EpochRecord
from respike.zoo.nn.respike import ReSpike
from respike.zoo.train_config import TrainConfig


@dataclass(kw_only=True)
class TrainState:
    """What has to be saved, with the random numbers' states, to go on exactly from here.

    `prepared` is the network as accelerate wrapped it, `model` the same weights unwrapped, `average` their moving
    average. `best_rank` orders epochs: the best has the greatest. `seen_videos` are hashes of the videos' ids.
    """

    prepared: nn.Module
    model: ReSpike
    optimizer: Optimizer
    scheduler: CosineLRScheduler
    average: ModelEmaV3 | None
    epoch: int = 0
    num_updates: int = 0
    best_epoch: int = 0
    best_rank: tuple[float, float] = (float("-inf"), float("-inf"))
    seen_videos: set[str] = field(default_factory=set)
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def saved_model(self) -> ReSpike:
        """The weights that are validated and saved."""
        if self.average is None:
            return self.model
        averaged: ReSpike = self.average.module
        return averaged

    def update(self, accelerator: Accelerator, loss: Tensor, max_grad_norm: float | None) -> None:
        """Take one step down the gradient of `loss`, a scalar."""
        accelerator.backward(loss)
        if max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.prepared.parameters(), max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.num_updates += 1
        self.scheduler.step_update(self.num_updates)
        if self.average is not None:
            self.average.update(self.model, step=self.num_updates)

    @property
    def learning_rate(self) -> float:
        """The rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return an accelerator for the device and precision of `config`. Raises SettingError where they do not go."""
    device = resolve_device(config.device)
    if config.amp == "fp16" and device.type == "cpu":
        raise SettingError("amp is 'fp16', which a CPU cannot train in", "use --amp bf16 or --amp no")
    # accelerate keeps the device and precision of its first use for the whole process; each run has its own
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=config.amp)


def make_state(model: ReSpike, config: TrainConfig, accelerator: Accelerator, *, num_updates: int) -> TrainState:
    """Begin a training of `num_updates` updates with `model`, which moves to the accelerator's device."""
    model.to(accelerator.device)
    optimizer = create_optimizer_v2(
        model,
        opt=config.optimizer,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        filter_bias_and_bn=False,
    )
    num_warmup = int(config.warmup_share * num_updates)
    scheduler = CosineLRScheduler(
        optimizer,
        # timm warns of a cosine of one update, which is as good as none
        t_initial=max(2, num_updates - num_warmup),
        warmup_t=num_warmup,
        # the first update is made at this rate; at 0 it would be wasted
        warmup_lr_init=config.learning_rate / (num_warmup + 1),
        warmup_prefix=True,
        t_in_epochs=False,
    )
    # copied before accelerate wraps the network's forward
    average = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    return TrainState(
        prepared=prepared, model=model, optimizer=prepared_optimizer, scheduler=scheduler, average=average
    )
