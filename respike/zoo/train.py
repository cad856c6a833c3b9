"""Training: a network and a source of batches, epoch by epoch, into a run folder."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import nn
from torch.nn import functional as F

from respike.errors import RespikeError
from respike.progress import SILENCE, Progress, Task
from respike.sample import BatchSource, DataSpec
from respike.zoo.checkpoint import CheckpointSpec
from respike.zoo.history import EpochRecord
from respike.zoo.nn.respike import ReSpike, check_image_size
from respike.zoo.run_folder import BEST_NAME, LAST_NAME, RunFolder
from respike.zoo.seen import hash_video
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_state import TrainState, make_accelerator, make_state

Validate = Callable[[nn.Module], Mapping[str, float]]

# reading a number off an accelerator waits for it, so not after every batch
_BATCHES_PER_REPORT = 10
_IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training left: the two checkpoints, the epoch (from 1) of the best, and every epoch's record."""

    out: Path
    best: Path
    last: Path
    best_epoch: int
    history: tuple[EpochRecord, ...]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What stays the same from the first update to the last; only the process that writes has a folder."""

    train: BatchSource
    config: TrainConfig
    out: Path
    data: DataSpec
    validate: Validate | None
    accelerator: Accelerator
    folder: RunFolder | None
    progress: Progress


def fit(
    model: ReSpike,
    train: BatchSource,
    config: TrainConfig,
    *,
    out: Path,
    data: DataSpec,
    validate: Validate | None = None,
    progress: Progress = SILENCE,
) -> TrainResult:
    """Train `model` on `train` for `config.epochs` and leave the run in the folder `out`.

    After each epoch `validate` (if given) is called with the network, in evaluation mode, and returns named numbers;
    the best epoch is the one with the highest `config.best_metric`, then the lowest `loss`, then the earliest.
    Without `validate` the best is the last. `out` gets `last.safetensors` and `best.safetensors` with their JSON
    specs, `history.jsonl`, `config.json` and `tensorboard/`. `train` gives each process its own batches, as many to
    each; what `data` says of them is remembered in the checkpoints, and so is which videos were seen.

    The seed and the network's first weights decide the trained weights, exactly on a CPU. Works on one process or,
    started by `torchrun` or `accelerate launch`, on several. `model` is trained in place and stays on the device.

    Raises SettingError for a device that is not there or a size that is no multiple of 32, RespikeError where `out`
    holds a run already, where `train` is empty, where the loss stops being a number (the checkpoints of earlier epochs
    stay), or where `validate` gives no `config.best_metric`.
    """
    if len(train) == 0:
        raise RespikeError("there is no batch to train on", f"lower the batch size, now {config.batch_size}")
    check_image_size(config.image_size, config.image_size)
    accelerator = make_accelerator(config)
    folder = RunFolder(out, config) if accelerator.is_main_process else None
    set_seed(config.seed, device_specific=True)
    num_updates = config.epochs * len(train)
    state = make_state(model, config, accelerator, num_updates=num_updates)
    run = _Run(
        train=train,
        config=config,
        out=out,
        data=data,
        validate=validate,
        accelerator=accelerator,
        folder=folder,
        progress=progress if folder else SILENCE,
    )
    try:
        with run.progress.task("train", total=num_updates, unit="batches") as task:
            while state.epoch < config.epochs:
                _run_epoch(state, run, task)
    finally:
        if folder is not None:
            folder.close()
        # takes mixed precision off the network's forward again
        accelerator.unwrap_model(state.prepared, keep_fp32_wrapper=False)
    return TrainResult(
        out=out,
        best=out / BEST_NAME,
        last=out / LAST_NAME,
        best_epoch=state.best_epoch,
        history=tuple(state.history),
    )


def _run_epoch(state: TrainState, run: _Run, task: Task) -> None:
    state.epoch += 1
    started = time.perf_counter()
    totals = _train_epoch(state, run, task)
    seconds = time.perf_counter() - started
    _require_finite_weights(state, run)
    validation = _validate(state, run)
    state.seen_videos = set(gather_object(sorted(state.seen_videos)))
    record = EpochRecord(
        epoch=state.epoch,
        train_loss=totals.loss,
        train_accuracy=totals.accuracy,
        learning_rate=state.learning_rate,
        seconds=seconds,
        clips_per_second=totals.num_clips / seconds,
        validation=validation,
    )
    state.history.append(record)
    rank = _rank(record, run.config.best_metric)
    is_best = rank > state.best_rank
    if is_best:
        state.best_rank, state.best_epoch = rank, state.epoch
    if run.folder is not None:
        run.folder.write_epoch(state.saved_model, _make_spec(state, run), state.history, is_best=is_best)
    run.progress.say(_describe(record, run.config, is_best=is_best))
    run.accelerator.wait_for_everyone()


@dataclass(frozen=True)
class _Totals:
    """Sums over the clips of an epoch so far, of all processes."""

    summed_loss: float = 0.0
    num_right: float = 0.0
    num_clips: float = 0.0

    @property
    def loss(self) -> float:
        return self.summed_loss / self.num_clips

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_clips


def _train_epoch(state: TrainState, run: _Run, task: Task) -> _Totals:
    accelerator, config = run.accelerator, run.config
    state.prepared.train()
    run.train.set_epoch(state.epoch - 1)
    sums = torch.zeros(3, device=accelerator.device)
    totals = _Totals()
    for step, batch in enumerate(run.train, start=1):
        moved = batch.to(accelerator.device, non_blocking=True)
        labels = moved.labels.masked_fill(~moved.mask, _IGNORED_LABEL)
        logits = state.prepared(moved.keys, moved.residuals, moved.color)
        loss = F.cross_entropy(logits, labels, ignore_index=_IGNORED_LABEL, label_smoothing=config.label_smoothing)
        state.update(accelerator, loss, config.max_grad_norm)
        num_clips = moved.mask.sum()
        sums += torch.stack([loss.detach() * num_clips, (logits.argmax(dim=1) == labels).sum(), num_clips])
        state.seen_videos.update(map(hash_video, batch.video_ids))
        facts: dict[str, str | float] = {}
        if step % _BATCHES_PER_REPORT == 0 or step == len(run.train):
            # every process reads the same sums, so a loss that is not a number stops them all at one step
            totals = _Totals(*accelerator.reduce(sums).tolist())
            if not math.isfinite(totals.loss):
                raise _diverged(f"the loss became {totals.loss} in epoch {state.epoch}, by batch {step}", state, run)
            facts = {"epoch": f"{state.epoch}/{config.epochs}", "loss": totals.loss, "accuracy": totals.accuracy}
        task.advance(1, **facts)
    return totals


def _validate(state: TrainState, run: _Run) -> dict[str, float]:
    if run.validate is None:
        return {}
    model = state.saved_model.eval()
    with run.accelerator.autocast():
        validation = {name: float(value) for name, value in run.validate(model).items()}
    if run.config.best_metric not in validation:
        raise RespikeError(
            f"the validation gave no {run.config.best_metric!r} to choose the best epoch by",
            f"set best_metric to one of {', '.join(validation)}",
        )
    return validation


def _rank(record: EpochRecord, metric: str) -> tuple[float, float]:
    """What the best epoch has most of; among equals in the metric the surer network is the better."""
    if not record.validation:
        return float(record.epoch), 0.0
    return record.validation[metric], -record.validation.get("loss", 0.0)


def _make_spec(state: TrainState, run: _Run) -> CheckpointSpec:
    return CheckpointSpec(
        model=state.model.config.to_json(),
        image_size=run.config.image_size,
        data=run.data,
        training=run.config.to_json(),
        epoch=state.epoch,
        scores=dict(state.history[-1].validation),
        train_videos=tuple(sorted(state.seen_videos)),
    )


def _require_finite_weights(state: TrainState, run: _Run) -> None:
    # the last update of an epoch may have spoilt the weights though every loss so far was a number
    tensors = [value for value in state.model.state_dict().values() if value.is_floating_point()]
    if not bool(torch.stack([value.isfinite().all() for value in tensors]).all()):
        raise _diverged(f"weights became infinite or not a number in epoch {state.epoch}", state, run)


def _diverged(problem: str, state: TrainState, run: _Run) -> RespikeError:
    kept = f"the last good checkpoint is {run.out / LAST_NAME}" if state.history else "no epoch was finished"
    return RespikeError(problem, f"{kept}; lower the learning rate, now {run.config.learning_rate:g}, and train again")


def _describe(record: EpochRecord, config: TrainConfig, *, is_best: bool) -> str:
    told = f"epoch {record.epoch}/{config.epochs}: loss {record.train_loss:.3f}, accuracy {record.train_accuracy:.3f}"
    if record.validation:
        told += f", validation {config.best_metric} {record.validation[config.best_metric]:.3f}"
    return told + f", {record.clips_per_second:.1f} clips/s" + (" (best so far)" if is_best else "")
