"""Training: shards and a recipe to a run folder, on one process or several."""

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from respike.common.distributed import (
    error_to_report,
    is_local_main_process,
    launch_warning,
    num_processes,
    process_index,
)
from respike.common.errors import DivergedError, MismatchError, RespikeError, SettingError, StoppedError
from respike.common.progress import SILENCE, Progress
from respike.common.signals import ExitCodeError, GracefulShutdown
from respike.common.text import counted
from respike.data.dataset import ShardDataset, open_shards
from respike.data.loader import ClipLoader, count_epoch_clips, make_loader
from respike.types import DataSpec
from respike.workflows.inputs import choose_num_workers, choose_run_folder, find_data
from respike.workflows.plots import draw_curves, save_figure
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.compatibility import find_overlap, transfer_weights
from respike.zoo.device import resolve_device
from respike.zoo.history import EpochRecord, read_history
from respike.zoo.models import OWN_VARIANT, FusionVariant, create_variant
from respike.zoo.nn.modes import find_single_value_norm
from respike.zoo.nn.respike import ReSpike
from respike.zoo.recipe import Recipe, read_recipe, setting_name
from respike.zoo.run_request import RunRequest, find_resumable_run, read_run_request
from respike.zoo.scoring import score
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_state import make_accelerator
from respike.zoo.trainer import TrainResult, Validate, find_finished, fit, on_main_process


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What a training left behind.

    - `out`: the run folder; `best` and `last`: its two checkpoints; `best_epoch`: from 1.
    - `history`: the record of every epoch.
    - `validated_on`: what the validation clips are: `held out` (of the training clips) or `of val`.
    - `was_done`: whether the run was complete before, so that nothing was trained.
    """

    out: Path
    best: Path
    last: Path
    best_epoch: int
    history: tuple[EpochRecord, ...]
    num_train_clips: int
    num_validation_clips: int
    validated_on: str
    was_done: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as `respike train --json` prints it."""
        best = self.history[self.best_epoch - 1]
        return {
            "out": str(self.out),
            "best": str(self.best),
            "last": str(self.last),
            "best_epoch": self.best_epoch,
            "num_epochs": len(self.history),
            "num_train_clips": self.num_train_clips,
            "num_validation_clips": self.num_validation_clips,
            "train_loss": best.train_loss,
            "train_accuracy": best.train_accuracy,
            "validation": dict(best.validation),
        }


@dataclass(frozen=True, kw_only=True)
class _TrainClips:
    """The clips of a data set to train on and to validate on, as `TrainOutcome` describes the latter."""

    shards: ShardDataset
    train: ShardDataset
    validation: ShardDataset
    validated_on: str


def train(
    data: str | Path | None = None,
    *,
    recipe: Recipe | str | Path | None = None,
    network: str | None = None,
    branches: str | None = None,
    config: TrainConfig | Mapping[str, object] | None = None,
    out: str | Path | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    workers: int | None = None,
    fusion: FusionVariant = OWN_VARIANT,
    on_start: Callable[[Path], None] | None = None,
    progress: Progress = SILENCE,
) -> TrainOutcome:
    """Train a network on prepared shards and leave a run folder. `respike train` calls this.

    - `data`: a folder or address of shards; by default the only one under `shards/`.
    - `recipe`: the settings to start from: a name from `respike recipes`, a TOML file or a Recipe.
    - `network`, `branches`: the network, by default that of the recipe, or else `respike_r18` and `hybrid`.
    - `config`: a TrainConfig, or any settings of a recipe by their names, such as `{"epochs": 5, "lr": 1e-3}`. A batch
      size that is not given is lowered to the number of clips.
    - `out`: the run folder, by default `runs/NETWORK-DATASET`, with a number if that is taken.
    - `init`: a checkpoint, as for `load_model`. Every part of it that fits replaces the random weights.
    - `resume`: continue the run in `out`, by default the only unfinished one under `runs/`. Its own settings apply,
      unless `recipe` is a Recipe. A run that is complete stays as it is, unless `config` asks for more epochs.
    - `force`: accept an `init` that was trained on videos of the evaluation subset.
    - `workers`: loader processes, by default 0 on a CPU and up to 8 with an accelerator.
    - `fusion`: how the branches are fused, if not in the network's own way.
    - `on_start`: called with the run folder before the first update.
    - `progress`: receives progress, messages and warnings.

    The best epoch is chosen on the subset `val` if the shards have one beside `test`; otherwise on a share of the
    training clips, whole sources of them. The evaluation subset stays unseen.

    Raises SettingError for a setting that is not allowed, MismatchError if the run to resume was started in another
    way, DivergedError if the loss is no longer a number, and RespikeError that says what else is wrong. Ctrl-C,
    SIGTERM, SIGHUP and SIGUSR1 save first and then raise a RespikeError. With several processes all of them raise; the
    text of the error is empty in those that need not report it.
    """
    try:
        folder = Path(out) if out is not None else find_resumable_run() if resume else None
        resumed = folder if resume else None
        request, is_batch_size_given = _resolve_request(data, recipe, network, branches, config, init, resumed)
        clips = _open_clips(request)
        request = _fit_batch_size(request, clips, progress, is_given=is_batch_size_given)
        settings = request.recipe.training
        if resumed is not None and (finished := find_finished(resumed, settings, clips.train.spec)):
            return _outcome(finished, clips, was_done=True)
        device = resolve_device(settings.device).type
        model, seen_videos = _create_network(request, clips, fusion, progress, force=force)
        _require_norms_to_work(model, settings, clips.train.spec)
    except RespikeError as error:
        if is_local_main_process():
            raise
        raise ExitCodeError("", "", 1) from error
    if problem := launch_warning():
        progress.warn(problem)
    num_workers = choose_num_workers(workers, device)
    run: Path | None = None
    # the run folder is named at the first signal, because a second one ends the training without a hint
    with GracefulShutdown(lambda text: progress.warn(f"{text}; {_resume_hint(run)}" if run else text)) as signals:
        try:
            # the main process chooses: a folder that it has just made is no longer free for the others
            run = on_main_process(
                make_accelerator(settings), lambda: choose_run_folder(folder, request.recipe.network, clips.train.spec)
            )
            if on_start is not None:
                on_start(run)
            progress.say(f"{_describe_clips(clips, settings)}; run folder {run}")
            result = fit(
                model,
                make_train_loader(clips.train, settings, num_workers),
                settings,
                out=run,
                data=clips.train.spec,
                validate=_make_validate(clips.validation, settings, num_workers, signals),
                progress=progress,
                resume=resume,
                should_stop=signals.stop_requested,
                seen_videos=seen_videos,
                extra_files=request.to_files(),
            )
        except RespikeError as error:
            if run is not None and isinstance(error, StoppedError | DivergedError):
                # the curves so far are worth a look, but not a second error
                with contextlib.suppress(RespikeError):
                    _draw_curves(read_history(run), run, settings)
            raise _error_of_process(error, signals, run) from error
    _draw_curves(result.history, run, settings)
    return _outcome(result, clips)


def make_train_loader(dataset: ShardDataset, config: TrainConfig, num_workers: int) -> ClipLoader:
    """Return a loader of training batches for this process."""
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


def _resolve_request(
    data: str | Path | None,
    recipe: Recipe | str | Path | None,
    network: str | None,
    branches: str | None,
    config: TrainConfig | Mapping[str, object] | None,
    init: str | Path | None,
    resumed: Path | None,
) -> tuple[RunRequest, bool]:
    """Return the request with all settings, and whether its batch size was asked for."""
    if isinstance(config, TrainConfig):
        values: dict[str, object] = config.to_json()
        is_batch_size_given = config.batch_size != TrainConfig.batch_size
    else:
        values = {setting_name(name): value for name, value in (config or {}).items()}
        is_batch_size_given = "batch_size" in values
    values |= {} if network is None else {"network": network}
    values |= {} if branches is None else {"branches": branches}
    recipe_name = None if recipe is None or isinstance(recipe, Recipe) else str(recipe)
    checkpoint = None if init is None else str(init)
    if resumed is not None and not isinstance(recipe, Recipe):
        started = read_run_request(resumed, recipe_name)
        if started is not None:
            request = RunRequest(
                recipe=started.recipe.override(values).resolve(),
                recipe_name=started.recipe_name,
                data=started.data if data is None else str(data),
                init=started.init if checkpoint is None else checkpoint,
            )
            return request, True
    base = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else read_recipe(recipe)
    recipe = base.override(values).resolve()
    request = RunRequest(recipe=recipe, recipe_name=recipe_name, data=find_data(data), init=checkpoint)
    return request, is_batch_size_given


def _open_clips(request: RunRequest) -> _TrainClips:
    """Open the shards and choose the validation clips. Raises RespikeError if there is nothing to learn from them."""
    shards, train_clips = open_shards(request.data), open_shards(request.data, "train")
    classes = train_clips.spec.classes
    if len(classes) < 2:
        raise RespikeError(f"the data has one class, {classes[0]}", "prepare videos of at least two classes")
    val_share = request.recipe.training.val_share
    has_val = shards.spec.evaluation_subset != "val" and any(row.subset == "val" for row in shards.clips)
    if val_share > 0 and has_val:
        validation = open_shards(request.data, "val")
        return _TrainClips(shards=shards, train=train_clips, validation=validation, validated_on="of val")
    train_clips, validation = train_clips.hold_out(val_share)
    return _TrainClips(shards=shards, train=train_clips, validation=validation, validated_on="held out")


def _fit_batch_size(request: RunRequest, clips: _TrainClips, progress: Progress, *, is_given: bool) -> RunRequest:
    """Lower the batch size to the number of clips in an epoch, unless it was asked for."""
    recipe, config = request.recipe, request.recipe.training
    most = max(1, _count_epoch_clips(clips, config) // num_processes())
    if is_given or most >= config.batch_size:
        return request
    progress.say(f"batch size {most} instead of {config.batch_size}: there are no more clips")
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(config, batch_size=most))
    return dataclasses.replace(request, recipe=recipe)


def _count_epoch_clips(clips: _TrainClips, config: TrainConfig) -> int:
    return count_epoch_clips([row.video for row in clips.train.clips], config.epoch_clips)


def _create_network(
    request: RunRequest, clips: _TrainClips, fusion: FusionVariant, progress: Progress, *, force: bool
) -> tuple[ReSpike, tuple[str, ...]]:
    """Build the network, with weights from `request.init` if there is one; return hashes of the videos these saw."""
    recipe = request.recipe
    if not len(clips.validation) and recipe.training.val_share > 0:
        progress.warn("every class has a single source video: nothing is held out, and the best epoch is the last")
    torch.manual_seed(recipe.training.seed)
    model = create_variant(
        recipe.network,
        num_classes=len(clips.train.spec.classes),
        branches=recipe.branches,
        options=recipe.given_options,
        fusion=fusion,
        # the weights of `init` replace them
        backbone_weights="none" if request.init else recipe.init_backbone,
    )
    if request.init is None:
        return model, ()
    source, spec = load_checkpoint(request.init, progress=progress)
    shards = clips.shards
    tested = {row.video for row in shards.clips if row.subset == shards.spec.evaluation_subset}
    if known := find_overlap(spec, tested):
        problem = f"{request.init} was trained on {len(known)} of the {len(tested)} videos of the evaluation subset"
        if not force:
            raise MismatchError(
                f"{problem}, the first is {known[0]}", "choose another split or another checkpoint, or set force"
            )
        progress.warn(f"{problem}: scores on them will mislead")
    if known := find_overlap(spec, {row.video for row in clips.validation.clips}):
        progress.warn(f"{request.init} was trained on {len(known)} of the validation videos: validation will mislead")
    transfer = transfer_weights(source, spec.data.classes, model, shards.spec.classes)
    progress.say(f"from {request.init}: {transfer}")
    return model, spec.train_videos


def _require_norms_to_work(model: ReSpike, config: TrainConfig, data: DataSpec) -> None:
    """Raise SettingError if a batch norm would get a single value a channel."""
    stride, clip_length = int(data.settings["stride"]), int(data.settings["clip_length"])
    num_groups, size = clip_length // stride, config.resolved_image_size
    # with more key frames in a batch every map has more values than one
    if config.batch_size * num_groups > 1 or (config.sync_batchnorm and num_processes() > 1):
        return
    keys = torch.empty(1, 1, 3, size, size, device="meta")
    residuals = torch.empty(1, 1, stride - 1, 3, size, size, device="meta")
    if (name := find_single_value_norm(model, keys, residuals, data.settings["color"])) is not None:
        raise SettingError(
            f"the batch norm {name} would get one value a channel, from a batch of 1 clip with 1 key frame, "
            f"{size} pixels wide; it needs at least two",
            "raise batch_size to 2 or more, or image_size",
            setting="batch_size",
        )


def _make_validate(
    dataset: ShardDataset, config: TrainConfig, num_workers: int, signals: GracefulShutdown
) -> Validate | None:
    """Return a function that scores a network on `dataset`, with all processes together; None if there is no clip.

    It stops once a signal has come.
    """
    if not len(dataset):
        return None
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
    source = signals.watch(loader)

    def validate(model: nn.Module) -> dict[str, float]:
        return score(model, source, num_classes=len(dataset.spec.classes)).to_flat()

    return validate


def _describe_clips(clips: _TrainClips, config: TrainConfig) -> str:
    an_epoch = "" if config.epoch_clips == "all" else f" ({_count_epoch_clips(clips, config):,} an epoch)"
    validation = f"{len(clips.validation):,} {clips.validated_on} to validate"
    if not len(clips.validation):
        validation = "none to validate, so the last epoch's checkpoint is what counts"
    return f"{counted(len(clips.train), 'clip')} to train on{an_epoch}, {validation}"


def _error_of_process(error: RespikeError, signals: GracefulShutdown, run: Path | None) -> RespikeError:
    """Return what this process raises for an error of the training: without a text if another process reports it."""
    reported: RespikeError | None
    if isinstance(error, StoppedError):
        reported = ExitCodeError(f"{signals.word}: {error.problem}", _resume_hint(run), signals.code)
        if process_index():
            reported = ExitCodeError("", "", signals.code)
    else:
        reported = error_to_report(error) or ExitCodeError("", "", 1)
    reported.is_shared = error.is_shared
    return reported


def _resume_hint(run: Path | None) -> str:
    return f"go on with `respike train --resume --out {shlex.quote(str(run))}`"


def _draw_curves(history: tuple[EpochRecord, ...], run: Path, config: TrainConfig) -> None:
    if process_index() == 0:
        save_figure(draw_curves(history, metric=config.best_metric), run / "curves.png")


def _outcome(result: TrainResult, clips: _TrainClips, *, was_done: bool = False) -> TrainOutcome:
    return TrainOutcome(
        out=result.out,
        best=result.best,
        last=result.last,
        best_epoch=result.best_epoch,
        history=tuple(result.history),
        num_train_clips=len(clips.train),
        num_validation_clips=len(clips.validation),
        validated_on=clips.validated_on,
        was_done=was_done,
    )
