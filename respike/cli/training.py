"""Training run: from shards and a recipe to a run folder, as `respike train` makes it, on one process or many."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respike.cli.begun import Begun
from respike.cli.defaults import choose_num_workers, choose_run_folder
from respike.cli.loaders import make_train_loader, make_validation
from respike.cli.ranks import (
    as_told,
    find_launch_problem,
    process_index,
    tells_plan_errors,
)
from respike.cli.starting import OpenedData, TrainRequest, open_data, start_from
from respike.cli.stopping import ProcessError, StopSignals
from respike.errors import DivergedError, RespikeError, StoppedError
from respike.wording import counted
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from respike.progress import Progress
    from respike.zoo.history import EpochRecord
    from respike.zoo.nn.respike import ReSpike
    from respike.zoo.train import TrainResult


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

    begun: Begun
    opened: OpenedData
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
        opened = open_data(request, progress)
        if (done := _find_done(request, opened)) is not None:
            return done
        plan = _make_plan(request, opened, progress, force=force)
    except RespikeError:
        if tells_plan_errors():
            raise
        return None
    if problem := find_launch_problem():
        progress.warn(problem)
    with StopSignals(progress.warn) as signals:
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


def _find_done(request: TrainRequest, opened: OpenedData) -> TrainOutcome | None:
    """The outcome of a run that is to be resumed and is done; None where there is something to do.

    Raises MismatchError where it was made otherwise.
    """
    from respike.zoo.train import find_finished

    if not request.is_resumed or request.out is None:
        return None
    result = find_finished(request.out, opened.recipe.training, opened.train_part.spec)
    if result is None:
        return None
    return _tell(result, opened, was_done=True)


def _tell(result: "TrainResult", opened: OpenedData, *, was_done: bool = False) -> TrainOutcome:
    return TrainOutcome(
        result=result,
        num_train_clips=len(opened.train_part),
        num_validation_clips=len(opened.validation),
        validated_on=opened.validated_on,
        was_done=was_done,
    )


def _make_plan(request: TrainRequest, opened: OpenedData, progress: "Progress", *, force: bool) -> _Plan:
    import torch

    from respike.zoo.ablation import OWN_VARIANT, create_variant
    from respike.zoo.device import resolve_device

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
        seen_videos = start_from(request.init, model, opened, progress, force=force)
    return _Plan(
        begun=Begun(recipe=recipe, recipe_name=request.recipe_name, data=opened.name, init=request.init),
        opened=opened,
        model=model,
        num_workers=choose_num_workers(request.num_workers, device),
        out=request.out,
        is_resumed=request.is_resumed,
        seen_videos=seen_videos,
    )


def _train(plan: _Plan, signals: StopSignals, progress: "Progress") -> TrainOutcome:
    from respike.zoo.history import read_history
    from respike.zoo.train import fit
    from respike.zoo.train_run import on_main_process
    from respike.zoo.train_state import make_accelerator

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
    from respike.cli.curves import draw_curves

    if process_index() == 0:
        draw_curves(history, out / "curves.png", metric=config.best_metric)


def _resume_hint(plan: _Plan) -> str:
    out = "" if plan.out is None else f" --out {plan.out}"
    return f"go on with `respike train --resume{out}`"
