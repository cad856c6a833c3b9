"""Training workflow: shards and a recipe to a run folder, on one process or many."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respike.common.distributed import as_told, find_launch_problem, num_processes, process_index, tells_plan_errors
from respike.common.errors import DivergedError, MismatchError, RespikeError, StoppedError
from respike.common.signals import GracefulShutdown, ProcessError
from respike.common.text import counted
from respike.workflows.inputs import choose_num_workers, choose_run_folder, find_data
from respike.zoo.recipe import Recipe
from respike.zoo.run_request import RunRequest
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from respike.common.progress import Progress
    from respike.data import ShardDataset
    from respike.types import BatchSource
    from respike.zoo.history import EpochRecord
    from respike.zoo.models import FusionVariant
    from respike.zoo.nn.respike import ReSpike
    from respike.zoo.trainer import TrainResult, Validate


def make_train_loader(dataset: "ShardDataset", config: TrainConfig, num_workers: int) -> "BatchSource":
    """Batches to train on, this process's own."""
    from respike.data import make_loader

    return make_loader(
        dataset,
        batch_size=config.batch_size,
        training=True,
        image_size=config.resolved_image_size,
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


def make_validation(
    dataset: "ShardDataset", config: TrainConfig, num_workers: int, signals: GracefulShutdown
) -> "Validate":
    """A function that scores a network on `dataset`, all processes together, and ends once a signal has come."""
    from respike.data import make_loader
    from respike.zoo.scoring import score

    loader = make_loader(
        dataset,
        batch_size=config.batch_size,
        training=False,
        image_size=config.resolved_image_size,
        eval_crop=config.eval_crop,
        num_workers=num_workers,
        rank=process_index(),
        world_size=num_processes(),
    )
    watched = signals.watch(loader)

    def validate(model: "nn.Module") -> dict[str, float]:
        return score(model, watched, num_classes=len(dataset.spec.classes)).to_flat()

    return validate


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What was asked for; None is for a default that hangs on what lies on disk.

    `fusion` is how the network fuses where it is not to do so in its own way.
    """

    data: str | None
    recipe: Recipe
    recipe_name: str | None
    is_batch_size_given: bool
    num_workers: int | None
    out: Path | None
    init: str | None
    is_resumed: bool
    fusion: "FusionVariant | None" = None


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """Shards, their clips to train on and to validate on, and the recipe as it goes with as many clips.

    `validated_on` says what `validation` is: clips `held out`, or those `of val`.
    """

    name: str
    shards: "ShardDataset"
    train_part: "ShardDataset"
    validation: "ShardDataset"
    validated_on: str
    num_epoch_clips: int
    recipe: Recipe


def load_train_data(request: TrainRequest, progress: "Progress") -> TrainData:
    """Find and open the data. Raises RespikeError where there is none, several, or nothing to learn from it."""
    from respike.data import open_shards
    from respike.data.loader import count_epoch_clips

    name = find_data(request.data)
    shards = open_shards(name)
    train_part, validation, validated_on = _split(name, shards, request.recipe.training.val_share)
    classes = train_part.spec.classes
    if len(classes) < 2:
        raise RespikeError(f"the data has one class, {classes[0]}", "prepare videos of at least two classes")
    num_epoch_clips = count_epoch_clips([row.video for row in train_part.clips], request.recipe.training.epoch_clips)
    recipe = _fit_batch_size(request, num_epoch_clips, progress)
    return TrainData(
        name=name,
        shards=shards,
        train_part=train_part,
        validation=validation,
        validated_on=validated_on,
        num_epoch_clips=num_epoch_clips,
        recipe=recipe,
    )


def _split(data: str, shards: "ShardDataset", val_share: float) -> tuple["ShardDataset", "ShardDataset", str]:
    """The clips to train on, those to validate on, and what the latter are; `val` where it is there for that."""
    from respike.data import open_shards

    train_part = open_shards(data, "train")
    if val_share > 0 and shards.spec.evaluation_subset != "val" and any(row.subset == "val" for row in shards.clips):
        return train_part, open_shards(data, "val"), "of val"
    return *train_part.hold_out(val_share), "held out"


def _fit_batch_size(request: TrainRequest, num_clips: int, progress: "Progress") -> Recipe:
    """Bring the default batch size, never one that was asked for, down to what there is."""
    recipe, size = request.recipe.resolve(), request.recipe.training.batch_size
    most = max(1, num_clips // num_processes())
    if request.is_batch_size_given or most >= size:
        return recipe
    progress.say(f"batch size {most} instead of {size}: there are no more clips")
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, batch_size=most))


def init_from_checkpoint(
    init: str, model: "ReSpike", opened: TrainData, progress: "Progress", *, force: bool
) -> tuple[str, ...]:
    """Load what fits of a trained network; return hashes of the videos it has learned from, which stay learned.

    Raises MismatchError where some of them are to test on, unless `force` makes that a warning.
    """
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.compatibility import find_overlap, transfer_weights

    source, spec = load_checkpoint(init, progress=progress)
    shards = opened.shards
    tested = {row.video for row in shards.clips if row.subset == shards.spec.evaluation_subset}
    if known := find_overlap(spec, tested):
        problem = f"{init} has learned from {len(known)} of the {counted(len(tested), 'video')} to test on"
        if not force:
            hint = "choose another split or another checkpoint, or go on with --force"
            raise MismatchError(f"{problem}, the first {known[0]}", hint)
        progress.warn(f"{problem}: scores on them will mislead")
    if known := find_overlap(spec, {row.video for row in opened.validation.clips}):
        progress.warn(f"{init} has learned from {len(known)} of the videos to validate on: that will look too good")
    transfer = transfer_weights(source, spec.data.classes, model, shards.spec.classes)
    progress.say(f"from {init}: {transfer}")
    return spec.train_videos


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What there is to tell afterwards; `was_done` where the run was complete before, and nothing was trained.

    `validated_on` is as in `OpenedData`.
    """

    result: "TrainResult"
    num_train_clips: int
    num_validation_clips: int
    validated_on: str
    was_done: bool = False

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


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """All that a training needs, found and checked; every process makes the same one."""

    begun: RunRequest
    opened: TrainData
    model: "ReSpike"
    num_workers: int
    out: Path | None
    is_resumed: bool
    seen_videos: tuple[str, ...]

    @property
    def config(self) -> TrainConfig:
        return self.begun.recipe.training


def run_training(request: TrainRequest, progress: "Progress", *, force: bool = False) -> TrainOutcome | None:
    """Open the data, build the network, train it and draw the curves; None where another process tells what failed.

    A run that is to be resumed and is done is left as it is. With `force` a network may start from one that has
    learned from videos that are to test on; that is warned of.
    """
    try:
        opened = load_train_data(request, progress)
        if (done := _find_done(request, opened)) is not None:
            return done
        plan = _make_plan(request, opened, progress, force=force)
    except RespikeError:
        if tells_plan_errors():
            raise
        return None
    if problem := find_launch_problem():
        progress.warn(problem)
    with GracefulShutdown(progress.warn) as signals:
        try:
            return _train(plan, signals, progress)
        except StoppedError as error:
            if process_index():
                raise ProcessError("", "", signals.code) from error
            raise ProcessError(f"{signals.word}: {error.problem}", _resume_hint(plan), signals.code) from error
        except RespikeError as error:
            if (told := as_told(error)) is None:
                return None
            raise told from error


def _find_done(request: TrainRequest, opened: TrainData) -> TrainOutcome | None:
    """The outcome of a run that is to be resumed and is done; None where there is something to do.

    Raises MismatchError where it was made otherwise.
    """
    from respike.zoo.trainer import find_finished

    if not request.is_resumed or request.out is None:
        return None
    result = find_finished(request.out, opened.recipe.training, opened.train_part.spec)
    if result is None:
        return None
    return _tell(result, opened, was_done=True)


def _tell(result: "TrainResult", opened: TrainData, *, was_done: bool = False) -> TrainOutcome:
    return TrainOutcome(
        result=result,
        num_train_clips=len(opened.train_part),
        num_validation_clips=len(opened.validation),
        validated_on=opened.validated_on,
        was_done=was_done,
    )


def _make_plan(request: TrainRequest, opened: TrainData, progress: "Progress", *, force: bool) -> _Plan:
    import torch

    from respike.zoo.device import resolve_device
    from respike.zoo.models import OWN_VARIANT, create_variant

    recipe = opened.recipe
    if not len(opened.validation) and recipe.training.val_share > 0:
        progress.warn("every class has a single source video: nothing is held out, and the best epoch is the last")
    device = resolve_device(recipe.training.device).type
    torch.manual_seed(recipe.training.seed)
    model = create_variant(
        recipe.network,
        num_classes=len(opened.train_part.spec.classes),
        branches=recipe.branches,
        options=recipe.given_options,
        fusion=request.fusion or OWN_VARIANT,
        # another network's weights replace them all
        backbone_weights="none" if request.init else recipe.init_backbone,
    )
    seen_videos: tuple[str, ...] = ()
    if request.init is not None:
        seen_videos = init_from_checkpoint(request.init, model, opened, progress, force=force)
    return _Plan(
        begun=RunRequest(recipe=recipe, recipe_name=request.recipe_name, data=opened.name, init=request.init),
        opened=opened,
        model=model,
        num_workers=choose_num_workers(request.num_workers, device),
        out=request.out,
        is_resumed=request.is_resumed,
        seen_videos=seen_videos,
    )


def _train(plan: _Plan, signals: GracefulShutdown, progress: "Progress") -> TrainOutcome:
    from respike.zoo.history import read_history
    from respike.zoo.train_state import make_accelerator
    from respike.zoo.trainer import fit, on_main_process

    config, train_part, validation = plan.config, plan.opened.train_part, plan.opened.validation
    data = train_part.spec
    # a folder that one process has just made is no longer free to the next
    out = on_main_process(
        make_accelerator(config), lambda: choose_run_folder(plan.out, plan.begun.recipe.network, data)
    )
    told = f"{len(validation):,} {plan.opened.validated_on} to validate"
    if not len(validation):
        told = "none to validate, so the last epoch's checkpoint is what counts"
    drawn = "" if config.epoch_clips == "all" else f" ({plan.opened.num_epoch_clips:,} an epoch)"
    progress.say(f"{counted(len(train_part), 'clip')} to train on{drawn}, {told}; run folder {out}")
    validate = make_validation(validation, config, plan.num_workers, signals) if len(validation) else None
    try:
        result = fit(
            plan.model,
            make_train_loader(train_part, config, plan.num_workers),
            config,
            out=out,
            data=data,
            validate=validate,
            progress=progress,
            resume=plan.is_resumed,
            should_stop=signals.is_asked,
            seen_videos=plan.seen_videos,
            beside=plan.begun.to_files(),
        )
    except (StoppedError, DivergedError):
        # how it went until then is worth a look, but not a second error
        with contextlib.suppress(RespikeError):
            _draw(read_history(out), out, config)
        raise
    _draw(result.history, out, config)
    return _tell(result, plan.opened)


def _draw(history: "tuple[EpochRecord, ...]", out: Path, config: TrainConfig) -> None:
    from respike.workflows.plots import draw_curves

    if process_index() == 0:
        draw_curves(history, out / "curves.png", metric=config.best_metric)


def _resume_hint(plan: _Plan) -> str:
    out = "" if plan.out is None else f" --out {plan.out}"
    return f"go on with `respike train --resume{out}`"
