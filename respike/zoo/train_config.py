"""Settings of a training: checked when made, saved with the weights."""

import dataclasses
import difflib
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from respike.common.errors import SettingError
from respike.types import CROP_KINDS, CROP_SCALE, CROP_SIDES, CropKind
from respike.zoo.model_options import LIF_BACKENDS, SIZE_STEP, LIFBackend, is_size, nearest_sizes

Amp = Literal["no", "bf16", "fp16"]
AMPS: tuple[Amp, ...] = get_args(Amp)
Schedule = Literal["cosine", "tanh", "poly", "step", "constant"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

# what decides neither the weights nor the scores of a run, so that a resumed run may have it otherwise
FREE_ON_RESUME = ("device", "save_every_minutes", "save_every_updates")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained.

    `batch_size` is per process; `accumulation_steps` batches of each process make one update. `optimizer` is timm's
    name of one: `adamw`, `sgd` (with Nesterov's momentum), `momentum` (plain SGD with momentum), and others.
    `weight_decay` acts on every parameter, or with `decay_norms` off on all but biases and norms. The learning rate
    rises linearly over the first `warmup_share` (0 up to 1) of all updates, then follows `schedule` (timm's of that
    name, `step` being a tenth after each third) to 0; `constant` stays. `backbone_lr_scale` is what the ANN branch's
    rate is multiplied by; for the first `freeze_backbone_epochs` that branch learns nothing.

    `amp` is the mixed precision of the forward pass. `max_grad_norm` clips the gradient's global norm, `ema_decay` (0
    to 1) keeps a moving average of the weights, which is then what is validated and saved, `mixup_alpha` (above 0)
    mixes pairs of clips (see mixup.py); None switches each off. `compile` runs the network through torch.compile,
    `gradient_checkpointing` trades time for memory in the spiking branch, `sync_batchnorm` lets the norms of all
    processes see the whole batch (CUDA alone), `lif_backend` says who computes the neurons: torch, triton or auto
    (`respike.zoo.nn.lif`).

    An epoch shows every stored clip once (`epoch_clips` is `all`), or that many clips of each video, drawn anew each
    epoch. `image_size` is in pixels, a multiple of 32, `best_metric` the value of the validation, higher being better,
    that the best checkpoint is kept by. `flip` and `crop` are the loader's augmentation: `resized` crops take from
    the smallest to the largest share of the area in `crop_scale`, `multi-scale` ones have sides that are
    `crop_sides` of the short side, the largest first. An evaluation looks at squares whose side is `eval_crop`
    (above 0, up to 1) of the short side. `val_share` (0 up to 1) of each class's training sources are held out to
    validate on where the data have no `val` subset for it; 0 trains on everything and validates on nothing, and then
    the last epoch counts as the best. `device` is auto, cpu, cuda or mps. A training saves where it stands after each
    epoch and every `save_every_minutes` or `save_every_updates` (None: not for that reason).

    The paper trains with `optimizer="momentum", learning_rate=1e-4, weight_decay=1e-4, warmup_share=0`, from a
    backbone with ImageNet weights, in mixed precision. Raises SettingError that names the field.
    """

    epochs: int = 100
    epoch_clips: int | Literal["all"] = "all"
    batch_size: int = 32
    accumulation_steps: int = 1
    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    decay_norms: bool = True
    momentum: float = 0.9
    schedule: Schedule = "cosine"
    warmup_share: float = 0.05
    backbone_lr_scale: float = 1.0
    freeze_backbone_epochs: int = 0
    label_smoothing: float = 0.0
    mixup_alpha: float | None = None
    amp: Amp = "no"
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    compile: bool = False
    gradient_checkpointing: bool = False
    sync_batchnorm: bool = False
    lif_backend: LIFBackend = "torch"
    seed: int = 0
    image_size: int = 224
    flip: bool = True
    crop: CropKind = "resized"
    crop_scale: tuple[float, float] = CROP_SCALE
    crop_sides: tuple[float, ...] = CROP_SIDES
    eval_crop: float = 1.0
    val_share: float = 0.1
    device: str = "auto"
    best_metric: str = "top1"
    save_every_minutes: float | None = 10.0
    save_every_updates: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation_steps"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1")
        is_number = isinstance(self.epoch_clips, int) and self.epoch_clips >= 1
        self._require("epoch_clips", is_number or self.epoch_clips == "all", "a whole number from 1, or all")
        nearest = nearest_sizes(self.image_size)
        self._require("image_size", is_size(self.image_size), f"a multiple of {SIZE_STEP}, such as {nearest}")
        self._require("freeze_backbone_epochs", self.freeze_backbone_epochs >= 0, "a whole number from 0")
        self._require("seed", 0 <= self.seed < 2**32, "a whole number from 0 to 4294967295")
        for name in ("learning_rate", "backbone_lr_scale"):
            self._require(name, getattr(self, name) > 0, "a number above 0")
        self._require("weight_decay", self.weight_decay >= 0, "a number from 0")
        for name in ("momentum", "warmup_share", "label_smoothing", "val_share"):
            self._require(name, 0 <= getattr(self, name) < 1, "a number from 0 and below 1")
        least, most = self.crop_scale
        self._require("crop_scale", 0 < least <= most <= 1, "two shares of the area above 0, the smaller first")
        sides = self.crop_sides
        is_falling = all(one > other for one, other in itertools.pairwise((*sides, 0.0)))
        self._require("crop_sides", bool(sides) and sides[0] <= 1 and is_falling, "falling numbers from 1 and above 0")
        self._require("eval_crop", 0 < self.eval_crop <= 1, "a share of the short side above 0, up to 1")
        self._require("crop", self.crop in CROP_KINDS, f"one of {', '.join(CROP_KINDS)}")
        self._require("amp", self.amp in AMPS, f"one of {', '.join(AMPS)}")
        self._require("lif_backend", self.lif_backend in LIF_BACKENDS, f"one of {', '.join(LIF_BACKENDS)}")
        self._require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        for name in ("max_grad_norm", "mixup_alpha", "save_every_minutes", "save_every_updates"):
            value = getattr(self, name)
            self._require(name, value is None or value > 0, "a number above 0, or none")
        self._require(
            "ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "a number between 0 and 1, or none"
        )
        if self.compile and self.gradient_checkpointing:
            raise SettingError("compile and gradient_checkpointing do not go together", "choose one of the two")
        self._check_optimizer()

    def _require(self, name: str, is_allowed: bool, allowed: str) -> None:
        value = getattr(self, name)
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not (is_allowed and is_finite):
            raise SettingError(f"{name} is {value!r}", f"give {allowed}")

    def _check_optimizer(self) -> None:
        from timm.optim import list_optimizers  # type: ignore[attr-defined]  # exported, without saying so to mypy

        names = [str(name) for name in list_optimizers()]
        if self.optimizer not in names:
            # timm has a hundred: a list that long hides the one that was meant
            near = difflib.get_close_matches(self.optimizer, names, n=5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(sorted(names))}"
            raise SettingError(f"optimizer is {self.optimizer!r}", hint)

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self) | {"crop_scale": list(self.crop_scale), "crop_sides": list(self.crop_sides)}
