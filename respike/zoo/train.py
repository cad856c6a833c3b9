"""Training: a network and a source of batches, epoch by epoch, into a run folder.

The seed and the network's first weights decide the trained weights, exactly on a CPU. So they do where a training is
resumed, whenever it was killed. It works on one process or, started by `torchrun` or `accelerate launch`, on several,
which see one file system; the first one writes and tells.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import gather_object, set_seed

from respike.batch_source import BatchSource
from respike.errors import RespikeError
from respike.progress import SILENCE, Progress, Task
from respike.sample import DataSpec
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.device import measure_peak_memory
from respike.zoo.firing import find_silent_layers
from respike.zoo.history import EpochRecord
from respike.zoo.nn.respike import ReSpike
from respike.zoo.resuming import restore
from respike.zoo.run_folder import BEST_NAME, LAST_NAME, clear_state, read_finished
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_epoch import Totals, train_epoch
from respike.zoo.train_run import TrainRun, Validate, explained_loss, on_main_process, open_run_folder
from respike.zoo.train_state import TrainState, make_accelerator, make_state

__all__ = ["TrainResult", "Validate", "find_finished", "fit"]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training left: the two checkpoints, the epoch (from 1) of the best, and every epoch's record."""

    out: Path
    best: Path
    last: Path
    best_epoch: int
    history: tuple[EpochRecord, ...]


def _never() -> bool:
    return False


def fit(
    model: ReSpike,
    train: BatchSource,
    config: TrainConfig,
    *,
    out: Path,
    data: DataSpec,
    validate: Validate | None = None,
    progress: Progress = SILENCE,
    resume: bool = False,
    should_stop: Callable[[], bool] = _never,
    seen_videos: Iterable[str] = (),
    beside: Mapping[str, str] | None = None,
) -> TrainResult:
    """Train `model` on `train` for `config.epochs` and leave the run in the folder `out`.

    `train` gives each process its own batches, as many to each; `data` says what they are. After each epoch `validate`
    is called with the network, in evaluation mode; the best epoch by its numbers is the one of most `EpochRecord.rank`.
    `out` gets what RunFolder writes, with the texts of `beside` by their file names; checkpoints remember the videos
    seen, `seen_videos` (hashes of those that `model` has learned from before) among them. `resume` goes on from the
    last save, or begins anew where there is none; a run that is done stays as it is, unless `config` has more epochs:
    then it goes on from its last weights (see resuming.py). `should_stop` is asked between updates: once True, the
    training is saved and StoppedError raised. `model` is trained in place, on the device.

    Raises SettingError for a device that is not there, RespikeError where `out` holds a run already, where `train`
    is empty or where `validate` gives no `config.best_metric`, MismatchError where the run to resume was begun
    otherwise, CheckpointError where every save of it is damaged, and DivergedError where the loss stops being a
    number (the checkpoints of earlier epochs stay).
    """
    if len(train) == 0:
        raise RespikeError("there is no batch to train on", f"lower the batch size, now {config.batch_size}")
    accelerator = make_accelerator(config)
    if resume and (finished := on_main_process(accelerator, lambda: find_finished(out, config, data))):
        return finished
    with open_run_folder(accelerator, out, resume=resume) as folder:
        run = TrainRun(
            train=train,
            config=config,
            out=out,
            data=data,
            validate=validate,
            accelerator=accelerator,
            folder=folder,
            progress=progress if folder else SILENCE,
            should_stop=should_stop,
        )
        state = _begin(model, run, seen_videos, beside or {}, resume=resume)
        with explained_loss(accelerator, out), _unwrapped_at_the_end(state):
            _run_epochs(state, run)
    return _result(out, state.best_epoch, state.history)


def find_finished(out: Path, config: TrainConfig, data: DataSpec) -> TrainResult | None:
    """Return what the run in `out` left where it is done, None where it is not or `config` has more epochs.

    Raises MismatchError where it was made with other settings or on other data.
    """
    finished = read_finished(out, config, data)
    if finished is None:
        return None
    # it may have been killed while it cleared up
    clear_state(out)
    return _result(out, *finished)


def _result(out: Path, best_epoch: int, history: Iterable[EpochRecord]) -> TrainResult:
    return TrainResult(
        out=out, best=out / BEST_NAME, last=out / LAST_NAME, best_epoch=best_epoch, history=tuple(history)
    )


def _begin(
    model: ReSpike, run: TrainRun, seen_videos: Iterable[str], beside: Mapping[str, str], *, resume: bool
) -> TrainState:
    set_seed(run.config.seed, device_specific=True)
    num_updates = run.config.epochs * -(-len(run.train) // run.config.accumulation_steps)
    state = make_state(model, run.config, run.accelerator, num_updates=num_updates, seen_videos=seen_videos)
    is_extended = resume and restore(state, run)
    # not before it is known that it was begun so: what the folder says is what a later resume goes by
    run.on_folder(lambda folder: folder.describe(run.config, model.config, run.data, beside))
    if is_extended:
        # before its last checkpoint says that it is not done: without a save it would then begin anew
        run.save(state)
    if state.history and len(state.history) == state.epoch:
        # it may have been killed after the save and before the epoch was written out
        _write_epoch(state, run)
    return state


@contextmanager
def _unwrapped_at_the_end(state: TrainState) -> Iterator[None]:
    try:
        yield
    finally:
        # takes mixed precision off the network's forward again
        state.accelerator.unwrap_model(state.prepared, keep_fp32_wrapper=False)


def _run_epochs(state: TrainState, run: TrainRun) -> None:
    num_done = len(run.train) * len(state.history) + (state.step if len(state.history) < state.epoch else 0)
    num_left = run.config.epochs * len(run.train) - num_done
    with run.progress.task("train", total=num_left, unit="batches") as task:
        while len(state.history) < run.config.epochs:
            _run_epoch(state, run, task)


def _run_epoch(state: TrainState, run: TrainRun, task: Task) -> None:
    state.begin_epoch()
    totals = train_epoch(state, run, task)
    state.share_statistics()
    run.require_finite_weights(state)
    if run.validate is not None:
        # a stop while validating, which may take long, then costs nothing that was learned
        run.save(state)
    validation = _validate(state, run)
    state.seen_videos = set(gather_object(sorted(state.seen_videos)))
    state.history.append(_make_record(state, run, totals, validation))
    rank = state.history[-1].rank(run.config.best_metric)
    if rank > state.best_rank:
        state.best_rank, state.best_epoch = rank, state.epoch
    run.save(state)
    _write_epoch(state, run)
    run.progress.say(_describe(state.history[-1], run.config, is_best=state.best_epoch == state.epoch))


def _write_epoch(state: TrainState, run: TrainRun) -> None:
    spec, is_best = _make_spec(state, run), state.best_epoch == state.epoch
    run.on_folder(lambda folder: folder.write_epoch(state.saved_model, spec, state.history, is_best=is_best))


def _validate(state: TrainState, run: TrainRun) -> dict[str, float]:
    if run.validate is None:
        return {}
    model = state.saved_model.eval()
    # what a loader draws from torch's generator is put back, see train_epoch.py
    with run.accelerator.autocast(), torch.random.fork_rng(devices=[]):
        validation = {name: float(value) for name, value in run.validate(model).items()}
    if run.config.best_metric not in validation:
        raise RespikeError(
            f"the validation gave no {run.config.best_metric!r} to choose the best epoch by",
            f"set best_metric to one of {', '.join(validation)}",
        )
    return validation


def _make_record(state: TrainState, run: TrainRun, totals: Totals, validation: Mapping[str, float]) -> EpochRecord:
    before = state.history[-1].firing_rates if state.history else {}
    for message in find_silent_layers(state.firing_rates, before):
        run.progress.warn(f"epoch {state.epoch}: {message}")
    return EpochRecord(
        epoch=state.epoch,
        train_loss=totals.loss,
        train_accuracy=totals.accuracy,
        learning_rate=state.learning_rate,
        seconds=state.seconds,
        clips_per_second=totals.num_clips / state.seconds,
        validation=validation,
        waited_share=min(1.0, state.waited_seconds / state.seconds),
        memory_bytes=measure_peak_memory(run.accelerator.device),
        firing_rates=dict(state.firing_rates),
        amp=run.config.amp,
    )


def _make_spec(state: TrainState, run: TrainRun) -> CheckpointSpec:
    return CheckpointSpec(
        model=state.model.config.to_json(),
        image_size=run.config.image_size,
        data=run.data,
        training=run.config.to_json(),
        epoch=state.epoch,
        scores=dict(state.history[-1].validation),
        train_videos=tuple(sorted(state.seen_videos)),
    )


def _describe(record: EpochRecord, config: TrainConfig, *, is_best: bool) -> str:
    told = f"epoch {record.epoch}/{config.epochs}: loss {record.train_loss:.3f}, accuracy {record.train_accuracy:.3f}"
    if record.validation:
        told += f", validation {config.best_metric} {record.validation[config.best_metric]:.3f}"
    return told + f", {record.clips_per_second:.1f} clips/s" + (" (best so far)" if is_best else "")
