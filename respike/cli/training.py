"""Training run: from shards and a recipe to a run folder, as `respike train` makes it, on one process or many."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respike.cli.begun import Begun
from respike.cli.defaults import choose_num_workers, choose_run_folder, find_data
from respike.cli.loaders import make_train_loader, make_validation
from respike.cli.ranks import (
    as_told,
    find_launch_problem,
    num_processes,
    process_index,
    tells_plan_errors,
)
from respike.cli.stopping import ProcessError, StopSignals
from respike.errors import DivergedError, MismatchError, RespikeError, StoppedError
from respike.wording import counted
from respike.zoo.recipe import Recipe
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from respike.data import ShardDataset
    from respike.progress import Progress
    from respike.zoo.ablation import FusionVariant
    from respike.zoo.history import EpochRecord
    from respike.zoo.nn.respike import ReSpike
    from respike.zoo.train import TrainResult

_VALIDATION_SHARE = 0.1


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
class TrainOutcome:
    """What there is to tell afterwards."""

    result: "TrainResult"
    num_train_clips: int
    num_validation_clips: int

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

    begun: Begun
    train_part: "ShardDataset"
    held_out: "ShardDataset"
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

    With `force` a network may start from one that has learned from videos that are to test on; that is warned of.
    """
    try:
        plan = _make_plan(request, progress, force=force)
    except RespikeError:
        if tells_plan_errors():
            raise
        return None
    if problem := find_launch_problem():
        progress.warn(problem)
    with StopSignals() as signals:
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


def _make_plan(request: TrainRequest, progress: "Progress", *, force: bool) -> _Plan:
    import torch

    from respike.data import open_shards
    from respike.zoo.ablation import OWN_VARIANT, create_variant
    from respike.zoo.device import resolve_device

    data = find_data(request.data)
    shards = open_shards(data)
    train_part, held_out = open_shards(data, "train").hold_out(_VALIDATION_SHARE)
    recipe = _fit_batch_size(request, len(train_part), progress)
    classes = train_part.spec.classes
    if len(classes) < 2:
        raise RespikeError(f"the data has one class, {classes[0]}", "prepare videos of at least two classes")
    if not len(held_out):
        progress.warn("every class has a single source video: nothing is held out, and the best epoch is the last")
    device = resolve_device(recipe.training.device).type
    torch.manual_seed(recipe.training.seed)
    model = create_variant(
        recipe.network,
        num_classes=len(classes),
        branches=recipe.branches,
        options=recipe.given_options,
        fusion=request.fusion or OWN_VARIANT,
        # another network's weights replace them all
        backbone_weights="none" if request.init else recipe.init_backbone,
    )
    seen_videos: tuple[str, ...] = ()
    if request.init is not None:
        seen_videos = _start_from(request.init, model, shards, held_out, progress, force=force)
    return _Plan(
        begun=Begun(recipe=recipe, recipe_name=request.recipe_name, data=data, init=request.init),
        train_part=train_part,
        held_out=held_out,
        model=model,
        num_workers=choose_num_workers(request.num_workers, device),
        out=request.out,
        is_resumed=request.is_resumed,
        seen_videos=seen_videos,
    )


def _fit_batch_size(request: TrainRequest, num_clips: int, progress: "Progress") -> Recipe:
    """Bring the default batch size, never one that was asked for, down to what there is."""
    recipe, size = request.recipe, request.recipe.training.batch_size
    most = max(1, num_clips // num_processes())
    if request.is_batch_size_given or most >= size:
        return recipe
    progress.say(f"batch size {most} instead of {size}: there are no more clips")
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, batch_size=most))


def _start_from(
    init: str,
    model: "ReSpike",
    shards: "ShardDataset",
    held_out: "ShardDataset",
    progress: "Progress",
    *,
    force: bool,
) -> tuple[str, ...]:
    """Load what fits of a trained network; return hashes of the videos it has learned from, which stay learned."""
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.transfer import find_overlap, transfer_weights

    source, spec = load_checkpoint(init, progress=progress)
    tested = {row.video for row in shards.clips if row.subset == shards.spec.evaluation_subset}
    if known := find_overlap(spec, tested):
        problem = f"{init} has learned from {len(known)} of the {counted(len(tested), 'video')} to test on"
        if not force:
            hint = "choose another split or another checkpoint, or go on with --force"
            raise MismatchError(f"{problem}, the first {known[0]}", hint)
        progress.warn(f"{problem}: scores on them will mislead")
    if known := find_overlap(spec, {row.video for row in held_out.clips}):
        progress.warn(f"{init} has learned from {len(known)} of the videos held out: validation will look too good")
    transfer = transfer_weights(source, spec.data.classes, model, shards.spec.classes)
    progress.say(f"from {init}: {transfer}")
    return spec.train_videos


def _train(plan: _Plan, signals: StopSignals, progress: "Progress") -> TrainOutcome:
    from respike.zoo.history import read_history
    from respike.zoo.train import fit
    from respike.zoo.train_run import on_main_process
    from respike.zoo.train_state import make_accelerator

    config, data = plan.config, plan.train_part.spec
    # a folder that one process has just made is no longer free to the next
    out = on_main_process(
        make_accelerator(config), lambda: choose_run_folder(plan.out, plan.begun.recipe.network, data)
    )
    num_train, num_held_out = len(plan.train_part), len(plan.held_out)
    progress.say(f"{counted(num_train, 'clip')} to train on, {num_held_out:,} held out to validate; run folder {out}")
    validate = make_validation(plan.held_out, config, plan.num_workers, signals) if num_held_out else None
    try:
        result = fit(
            plan.model,
            make_train_loader(plan.train_part, config, plan.num_workers),
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
    return TrainOutcome(result=result, num_train_clips=num_train, num_validation_clips=num_held_out)


def _draw(history: "tuple[EpochRecord, ...]", out: Path, config: TrainConfig) -> None:
    from respike.cli.curves import draw_curves

    if process_index() == 0:
        draw_curves(history, out / "curves.png", metric=config.best_metric)


def _resume_hint(plan: _Plan) -> str:
    out = "" if plan.out is None else f" --out {plan.out}"
    return f"go on with `respike train --resume{out}`"
