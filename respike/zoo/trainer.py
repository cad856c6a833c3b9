"""Trainer: epochs of updates from batches to a run folder."""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch import Tensor, nn

from respike.common.errors import DivergedError, MismatchError, RespikeError, StoppedError
from respike.common.progress import SILENCE, Progress, Task
from respike.types import Batch, BatchSource, DataSpec
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.compatibility import hash_video
from respike.zoo.device import measure_peak_memory
from respike.zoo.firing_rates import find_silent_layers, measure_firing_rates
from respike.zoo.history import EpochRecord, read_history
from respike.zoo.mixup import mix
from respike.zoo.nn.respike import ReSpike
from respike.zoo.run_folder import BEST_NAME, LAST_NAME, RunFolder, clear_state, read_finished
from respike.zoo.snapshot import SeekableSource, read_snapshot, restore_snapshot, take_snapshot
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_state import TrainState, make_accelerator, make_state

Validate = Callable[[nn.Module], Mapping[str, float]]
T = TypeVar("T")

# what gloo and NCCL say of a peer that is no longer there
_LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "remote process",
    "nccl",
    "timed out",
)


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """The settings and surroundings of one training; only the main process, which writes, has a folder."""

    train: BatchSource
    config: TrainConfig
    out: Path
    data: DataSpec
    validate: Validate | None
    accelerator: Accelerator
    folder: RunFolder | None
    progress: Progress
    should_stop: Callable[[], bool]

    def save(self, state: TrainState) -> None:
        """Save where the training stands; every process calls this. Raises DivergedError where it has diverged."""
        self.require_finite_weights(state)
        snapshot = take_snapshot(state, self.train, self.config, self.data)
        self.on_folder(lambda folder: folder.write_snapshot(snapshot))

    def on_folder(self, call: Callable[[RunFolder], T]) -> T | None:
        """Call a function of the run's folder on the main process, while the others wait for what it gives or raises.

        A disk that is full then ends all of them alike.
        """
        return on_main_process(self.accelerator, lambda: call(self.folder) if self.folder else None)

    def require_finite_weights(self, state: TrainState) -> None:
        """Raise DivergedError where a weight is no number, as after a last update with every loss so far sound."""
        tensors = [value for value in state.model.state_dict().values() if value.is_floating_point()]
        if not bool(torch.stack([value.isfinite().all() for value in tensors]).all()):
            raise self.diverged(f"weights became infinite or not a number in epoch {state.epoch}", state)

    def diverged(self, problem: str, state: TrainState) -> DivergedError:
        """The error to raise where the training has lost its way."""
        kept = f"the last good checkpoint is {self.out / LAST_NAME}" if state.history else "no epoch was finished"
        rate = f"lower the learning rate, now {self.config.learning_rate:g}, and train again"
        return DivergedError(problem, f"{kept}; {rate}")


def open_run_folder(accelerator: Accelerator, out: Path, *, resume: bool) -> AbstractContextManager[RunFolder | None]:
    """Open the folder on the main process, which gets it; what that raises is raised in every process."""
    opened: list[RunFolder] = []
    on_main_process(accelerator, lambda: opened.append(RunFolder(out, resume=resume)))
    return opened[0] if opened else nullcontext()


@contextmanager
def translate_lost_peer_errors(accelerator: Accelerator, out: Path) -> Iterator[None]:
    """Turn what torch raises where another process has gone into a RespikeError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if accelerator.num_processes == 1 or not any(word in text for word in _LOST):
            raise
        raise RespikeError(
            f"another process of the training has gone: {_first_sentence(error)}",
            f"see what that process says; {out} can be gone on with by --resume (in Python: resume=True)",
        ) from error


def _first_sentence(error: RuntimeError) -> str:
    # gloo begins with the place in its source, and ends with advice to whoever wrote it
    line = re.sub(r"^\[[^]]*\]\s*", "", str(error).splitlines()[0])
    return line.split(". ")[0]


def on_main_process(accelerator: Accelerator, call: Callable[[], T]) -> T:
    """Call a function on the main process and hand what it returns, or the RespikeError it raises, to every process."""
    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer = [call(), None]
        except RespikeError as error:
            answer = [None, error]
    if accelerator.num_processes > 1:
        broadcast_object_list(answer)
    result: T = answer[0]
    problem: RespikeError | None = answer[1]
    if problem is not None:
        problem.is_shared = True
        raise problem
    return result


def restore(state: TrainState, run: TrainRun) -> bool:
    """Bring `state` to where the run stands; True where that was its end, from which it now goes on."""
    path = run.on_folder(lambda folder: folder.find_snapshot(run.progress))
    if path is None and run.on_folder(lambda folder: folder.is_finished()):
        _extend_finished(state, run)
        return True
    if path is None:
        run.progress.say(f"nothing was saved in {run.out}: training begins anew")
        return False
    snapshot = read_snapshot(path)
    restore_snapshot(snapshot, state, run.train, run.config, run.data)
    # older snapshots do not say
    if (version := snapshot.facts.get("torch_version")) not in (None, torch.__version__):
        run.progress.warn(
            f"saved with torch {version}, this is {torch.__version__}: the last digits may come out otherwise"
        )
    run.progress.say(f"going on in epoch {state.epoch} of {run.config.epochs}, after update {state.num_updates:,}")
    if (before := snapshot.facts["config"]["epochs"]) != run.config.epochs:
        run.progress.say(_describe_extension(state, run.config, before))
    return False


def _extend_finished(state: TrainState, run: TrainRun) -> None:
    """Bring `state`, as it was begun, to the end of the run that is done in `run.out`; every process calls this.

    Raises MismatchError where that is of another network.
    """
    model, spec = load_checkpoint(run.out / LAST_NAME)
    if model.config != state.model.config:
        raise MismatchError(
            f"the run {run.out} is of another network, {model.config.name} with branches {model.config.branches}",
            "resume it as it was begun, or train anew into another folder",
        )
    for kept in (state.model, state.saved_model):
        kept.load_state_dict(model.state_dict())
    state.history = list(read_history(run.out))
    state.epoch, state.step = spec.epoch, len(run.train)
    state.num_updates = spec.epoch * -(-len(run.train) // run.config.accumulation_steps)
    best = max(state.history, key=lambda record: record.rank(run.config.best_metric))
    state.best_epoch, state.best_rank = best.epoch, best.rank(run.config.best_metric)
    state.seen_videos |= set(spec.train_videos)
    state.scheduler.step_update(state.num_updates)
    told = _describe_extension(state, run.config, spec.training["epochs"])
    run.progress.say(f"{told}; the optimizer begins anew")


def _describe_extension(state: TrainState, config: TrainConfig, before: int) -> str:
    """What becomes of the schedule of a run that was begun with `before` epochs."""
    return (
        f"{config.epochs} epochs instead of {before}: the learning rate goes on at {state.learning_rate:.3g}, "
        f"where a {config.schedule} schedule of {config.epochs} epochs is by now"
    )


# reading a number off an accelerator waits for it, so not after every batch; but a stop must not wait for long
_MOST_BATCHES_PER_REPORT = 10
_SECONDS_PER_REPORT = 2.0


@dataclass(frozen=True)
class Totals:
    """Sums over the clips of an epoch so far, of all processes."""

    summed_loss: float = 0.0
    num_right: float = 0.0
    num_clips: float = 0.0

    @property
    def loss(self) -> float:
        """Mean cross-entropy of a clip."""
        return self.summed_loss / self.num_clips

    @property
    def accuracy(self) -> float:
        """Share of clips told right, 0 to 1."""
        return self.num_right / self.num_clips


@dataclass
class _Pace:
    """When the processes next compare notes, and when they last saved."""

    report_at: int
    reported: float
    step: int
    saved: float
    saved_update: int


def train_epoch(state: TrainState, run: TrainRun, task: Task) -> Totals:
    """Train from `state.step` to the epoch's end and look how its last batch makes neurons fire; return its totals.

    Raises DivergedError where the loss is no number, StoppedError once a stop that was asked for is saved.
    """
    config, num_batches = run.config, len(run.train)
    state.freeze(state.epoch <= config.freeze_backbone_epochs)
    state.to_training()
    opened = time.perf_counter()
    batches = _open_epoch(state, run)
    now = time.perf_counter()
    state.seconds, state.waited_seconds = state.seconds + now - opened, state.waited_seconds + now - opened
    pace = _Pace(state.step + 1, now, state.step, now, state.num_updates)
    totals = Totals(*run.accelerator.reduce(state.sums).tolist())
    batch: Batch | None = None
    while state.step < num_batches:
        started = time.perf_counter()
        num_together = min(config.accumulation_steps, num_batches - state.step)
        for number in range(num_together):
            asked = time.perf_counter()
            batch = next(batches)
            state.waited_seconds += time.perf_counter() - asked
            _learn(batch, state, run, num_together=num_together, is_last=number + 1 == num_together)
        state.update(config.max_grad_norm)
        state.seconds += time.perf_counter() - started
        if state.step >= pace.report_at or state.step == num_batches:
            totals = _report(state, run, pace)
            of = f"{state.epoch}/{config.epochs}"
            task.advance(num_together, epoch=of, loss=totals.loss, accuracy=totals.accuracy)
        else:
            task.advance(num_together)
    # lets the source end its pass by itself, and its workers with it
    next(batches, None)
    if batch is not None:
        with run.accelerator.autocast():
            state.firing_rates = measure_firing_rates(state.model, batch.to(run.accelerator.device))
    return totals


def _open_epoch(state: TrainState, run: TrainRun) -> Iterator[Batch]:
    """The epoch's batches from `state.step` on, the first of them loaded.

    A DataLoader draws a seed from torch's generator when it is opened. What it draws is put back, so that the numbers
    the network draws do not hang on how often a training was resumed.
    """
    first = state.step
    position = run.train.state_dict() if first and isinstance(run.train, SeekableSource) else None
    run.train.set_epoch(state.epoch - 1)
    with torch.random.fork_rng(devices=[]):
        if position is not None and isinstance(run.train, SeekableSource):
            run.train.load_state_dict(position)
            batches = iter(run.train)
        else:
            batches = itertools.islice(iter(run.train), first, None)
        loaded = list(itertools.islice(batches, 1))
    return itertools.chain(loaded, batches)


def _learn(batch: Batch, state: TrainState, run: TrainRun, *, num_together: int, is_last: bool) -> None:
    config, accelerator = run.config, run.accelerator
    moved = batch.to(accelerator.device, non_blocking=True)
    seed = (config.seed, state.epoch, state.step, accelerator.process_index)
    mixed = mix(moved, config.mixup_alpha, seed)
    logits = state.prepared(mixed.batch.keys, mixed.batch.residuals, mixed.batch.color)
    loss = mixed.loss(logits, config.label_smoothing)
    state.backward(loss / num_together if num_together > 1 else loss, is_last=is_last)
    num_clips = moved.mask.sum()
    num_right = (logits.argmax(dim=1) == mixed.main_labels).sum()
    state.sums += torch.stack([loss.detach() * num_clips, num_right, num_clips])
    state.seen_videos.update(map(hash_video, batch.video_ids))
    state.step += 1


def _report(state: TrainState, run: TrainRun, pace: _Pace) -> Totals:
    """Compare notes with the other processes: totals, whether to save, whether to stop."""
    now = time.perf_counter()
    seconds_per_batch = (now - pace.reported) / max(1, state.step - pace.step)
    wishes = [float(run.should_stop()), float(_is_due(state, run, pace, now)), seconds_per_batch]
    notes = torch.cat([state.sums, torch.tensor(wishes, device=state.sums.device)])
    # every process reads the same sums, so that all stop, save and go on at one step
    *sums, stop, save, all_seconds = _reduce(notes, run)
    totals = Totals(*sums)
    if not math.isfinite(totals.loss):
        raise run.diverged(f"the loss became {totals.loss} in epoch {state.epoch}, by batch {state.step}", state)
    if stop or save:
        run.save(state)
        pace.saved, pace.saved_update = time.perf_counter(), state.num_updates
    if stop:
        raise StoppedError(
            f"training stopped in epoch {state.epoch} of {run.config.epochs}, after batch {state.step} of "
            f"{len(run.train)}; it is saved in {run.out}",
            "go on with it by --resume (in Python: resume=True)",
        )
    num_batches = _SECONDS_PER_REPORT * run.accelerator.num_processes / max(all_seconds, 1e-9)
    pace.report_at = state.step + int(min(max(1.0, num_batches), _MOST_BATCHES_PER_REPORT))
    pace.reported, pace.step = time.perf_counter(), state.step
    return totals


def _is_due(state: TrainState, run: TrainRun, pace: _Pace, now: float) -> bool:
    config = run.config
    if state.step == len(run.train):  # saved in a moment, as every finished epoch is
        return False
    minutes, updates = config.save_every_minutes, config.save_every_updates
    return (minutes is not None and now - pace.saved >= 60 * minutes) or (
        updates is not None and state.num_updates - pace.saved_update >= updates
    )


def _reduce(notes: Tensor, run: TrainRun) -> list[float]:
    totals: list[float] = run.accelerator.reduce(notes).tolist()
    return totals


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
        with translate_lost_peer_errors(accelerator, out), _unwrapped_at_the_end(state):
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
