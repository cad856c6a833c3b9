"""Train config: the settings of a training. Loads no torch."""

import difflib
import itertools
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from msgspec import Meta

from respike.common.config import Config, option
from respike.common.errors import SettingError
from respike.types import CROP_SCALE, CROP_SIDES, CropKind
from respike.zoo.model_options import SIZE_STEP, LIFBackend, is_size, nearest_sizes

Amp = Literal["no", "bf16", "fp16"]
AMPS: tuple[Amp, ...] = get_args(Amp)
Schedule = Literal["cosine", "tanh", "poly", "step", "constant"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

# settings that change neither the weights nor the scores of a run: a resumed run may have other values
FREE_ON_RESUME = ("device", "save_every_minutes", "save_every_updates")
# these names are checked without timm, whose import loads torch
_USUAL_OPTIMIZERS = ("adamw", "sgd", "momentum")

Positive = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """The settings of a training. Raises SettingError that names the setting.

    The paper trains with `optimizer="momentum", learning_rate=1e-4, weight_decay=1e-4, warmup_share=0` in mixed
    precision, from a backbone with ImageNet weights.
    """

    epochs: Annotated[int, option("Passes over the training clips.", ge=1)] = 100
    epoch_clips: Annotated[
        Annotated[int, Meta(ge=1)] | Literal["all"],
        option("Clips of an epoch: all that are stored, or K of each video, drawn again each epoch.", metavar="all|K"),
    ] = "all"
    batch_size: Annotated[int, option("Clips of a batch, per process; lowered if there are fewer clips.", ge=1)] = 32
    accumulation_steps: Annotated[int, option("Batches of an update, per process.", name="accumulate", ge=1)] = 1
    learning_rate: Annotated[float, option("Highest learning rate.", name="lr", gt=0)] = 1e-3
    optimizer: Annotated[
        str, option("An optimizer of timm: adamw, sgd (Nesterov), momentum (SGD with momentum), …", metavar="NAME")
    ] = "adamw"
    weight_decay: Annotated[float, option("Weight decay.", ge=0)] = 0.05
    decay_norms: Annotated[bool, option("Apply weight decay to biases and norms as well.", name="")] = True
    momentum: Annotated[float, option("Momentum of the optimizer.", name="", ge=0, lt=1)] = 0.9
    schedule: Annotated[
        Schedule, option("Learning rate after the warm-up; step divides it by 10 after each third.")
    ] = "cosine"
    warmup_share: Annotated[
        float, option("Share of all updates in which the rate rises.", name="warmup", metavar="SHARE", ge=0, lt=1)
    ] = 0.05
    backbone_lr_scale: Annotated[
        float, option("Learning rate of the backbone, as a multiple of that of the rest.", gt=0)
    ] = 1.0
    freeze_backbone_epochs: Annotated[
        int,
        option("First epochs, in which the backbone does not learn.", name="freeze-backbone", metavar="EPOCHS", ge=0),
    ] = 0
    label_smoothing: Annotated[float, option("Label smoothing.", metavar="SHARE", ge=0, lt=1)] = 0.0
    mixup_alpha: Annotated[
        Positive | None, option("Blend pairs of clips, with λ from Beta(α, α).", name="mixup", metavar="α")
    ] = None
    amp: Annotated[Amp, option("Mixed precision of the forward pass.")] = "no"
    max_grad_norm: Annotated[
        Positive | None, option("Largest global norm of the gradient.", name="clip-grad", metavar="NORM")
    ] = None
    ema_decay: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        option("Validate and save a moving average of the weights.", name="ema", metavar="DECAY"),
    ] = None
    compile: Annotated[bool, option("Run the network through torch.compile.")] = False
    gradient_checkpointing: Annotated[bool, option("Less memory, more time, the same gradients.")] = False
    sync_batchnorm: Annotated[bool, option("Batch norm over the clips of all processes (CUDA).")] = False
    lif_backend: Annotated[LIFBackend, option("Code that computes the neurons.")] = "torch"
    seed: Annotated[int, option("Seed of weights, order and augmentation.", ge=0, lt=2**32)] = 0
    image_size: Annotated[
        int | None,
        option(f"Side of the images in pixels, a multiple of {SIZE_STEP}; none: the network's own.", metavar="PIXELS"),
    ] = None
    flip: Annotated[bool, option("Mirror clips at random; turn this off if left and right matter.")] = True
    crop: Annotated[CropKind, option("Random crops of training.", name="")] = "resized"
    crop_scale: Annotated[
        tuple[float, float], option("For resized crops: smallest and largest share of the area.", name="")
    ] = CROP_SCALE
    crop_sides: Annotated[
        tuple[float, ...],
        option("For multi-scale crops: sides as shares of the short side, in falling order.", name=""),
    ] = CROP_SIDES
    eval_crop: Annotated[
        float, option("Side of the square that is evaluated, as a share of the short side.", name="", gt=0, le=1)
    ] = 1.0
    val_share: Annotated[
        float,
        option(
            "Share of the training sources of a class to validate on if there is no val subset; 0: no validation.",
            metavar="SHARE",
            ge=0,
            lt=1,
        ),
    ] = 0.1
    device: Annotated[str, option("auto, cpu, cuda or mps.")] = "auto"
    best_metric: Annotated[str, option("Validation score that chooses the best epoch.", name="")] = "top1"
    save_every_minutes: Annotated[Positive | None, option("Minutes between saves.", name="")] = 10.0
    save_every_updates: Annotated[Annotated[int, Meta(ge=1)] | None, option("Updates between saves.", name="")] = None

    @property
    def resolved_image_size(self) -> int:
        """The side of the images in pixels. Raises SettingError while it depends on the network."""
        if self.image_size is None:
            raise SettingError("image_size is none", "give it, or call TrainConfig.for_network", setting="image_size")
        return self.image_size

    def for_network(self, name: str) -> "TrainConfig":
        """Return the settings as they apply to the network `name`: with its image size, unless one is set."""
        if self.image_size is not None:
            return self
        # loads torch, which reading settings must not
        from respike.zoo.models import default_image_size

        return replace(self, image_size=default_image_size(name))

    def check(self) -> None:
        """Check image size, crops, the optimizer's name and settings that exclude each other. Raises SettingError."""
        if self.image_size is not None and not is_size(self.image_size):
            raise self._error("image_size", f"a multiple of {SIZE_STEP}, such as {nearest_sizes(self.image_size)}")
        smallest, largest = self.crop_scale
        if not 0 < smallest <= largest <= 1:
            raise self._error("crop_scale", "two shares of the area above 0 and up to 1, the smaller first")
        sides = self.crop_sides
        if not sides or sides[0] > 1 or not all(one > other for one, other in itertools.pairwise((*sides, 0.0))):
            raise self._error("crop_sides", "numbers above 0 and up to 1 in falling order")
        if self.compile and self.gradient_checkpointing:
            raise SettingError("compile and gradient_checkpointing do not go together", "choose one of the two")
        self._check_optimizer()

    def _error(self, name: str, allowed: str) -> SettingError:
        return SettingError(f"{name} is {getattr(self, name)!r}", f"give {allowed}", setting=name)

    def _check_optimizer(self) -> None:
        if self.optimizer in _USUAL_OPTIMIZERS:
            return
        from timm.optim import list_optimizers  # type: ignore[attr-defined]  # mypy does not see timm's export

        names = [str(name) for name in list_optimizers()]
        if self.optimizer not in names:
            # timm has a hundred: the nearest few are easier to read
            near = difflib.get_close_matches(self.optimizer, names, n=5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(sorted(names))}"
            raise SettingError(f"optimizer is {self.optimizer!r}", hint, setting="optimizer")
