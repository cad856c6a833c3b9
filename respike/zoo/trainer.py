"""Trainer: trains a network on batches, epoch by epoch, and leaves a run folder."""

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
from torch import nn

from respike.common.config import to_plain
from respike.common.errors import DivergedError, MismatchError, RespikeError, StoppedError
from respike.common.progress import SILENCE, Progress, Task
from respike.types import Batch, BatchSource, DataSpec
from respike.zoo.checkpoint import load_checkpoint, save_checkpoint
from respike.zoo.checkpoint_spec import CheckpointSpec
from respike.zoo.compatibility import hash_video
from respike.zoo.device import measure_peak_memory
from respike.zoo.firing_rates import describe_abnormal_layers, measure_firing_rates
from respike.zoo.history import EpochRecord, read_history
from respike.zoo.mixup import mix
from respike.zoo.nn.respike import ReSpike
from respike.zoo.run_folder import BEST_NAME, LAST_NAME, RunFolder, clear_state, read_finished
from respike.zoo.snapshot import SeekableSource, read_snapshot, restore_snapshot, take_snapshot
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_state import TrainState, describe_ignored_environment, make_accelerator, make_state

__all__ = ["TrainResult", "Trainer", "Validate", "find_finished", "fit", "on_main_process"]

Validate = Callable[[nn.Module], Mapping[str, float]]
T = TypeVar("T")

# The processes compare their sums after this many batches or this many seconds, whichever comes first. Reading a number
# from an accelerator waits for it, so this is not done after every batch; but a stop must not wait for long.
_MAX_BATCHES_PER_SYNC = 10
_SECONDS_PER_SYNC = 2.0
# parts of the messages of gloo and NCCL if another process is gone
_LOST_PEER_MESSAGES = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "remote process",
    "nccl",
    "timed out",
)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training left: its run folder, two checkpoints, the best epoch (from 1) and a record of every epoch."""

    out: Path
    best: Path
    last: Path
    best_epoch: int
    history: tuple[EpochRecord, ...]


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
    should_stop: Callable[[], bool] = lambda: False,
    seen_videos: Iterable[str] = (),
    extra_files: Mapping[str, str] | None = None,
) -> TrainResult:
    """Train `model` on `train` for `config.epochs` epochs. The model is trained in place, on the device of `config`.

    - `train`: this process's own batches; every process must have the same number. `data` says what they are.
    - `out`: the run folder (see RunFolder). `extra_files`: texts of further files in it, by file name.
    - `validate`: called after each epoch with the network in evaluation mode. The best epoch has the greatest
      `EpochRecord.rank` by `config.best_metric`; without `validate` it is the last.
    - `resume`: continue from the newest snapshot in `out`, or start if there is none. A complete run stays as it is,
      unless `config` has more epochs: it then continues from its last weights, with a new optimizer.
    - `should_stop`: asked between updates. Once it returns True, the training is saved and StoppedError raised.
    - `seen_videos`: hashes of videos that `model` was trained on before. Checkpoints list them with the new ones.

    Raises SettingError for a device that is not available; RespikeError if `out` already holds a run, `train` is empty
    or `validate` does not return `config.best_metric`; MismatchError if the run to resume was started with other
    settings; CheckpointError if all its snapshots are damaged; DivergedError if the loss or a weight is not finite.
    """
    if len(train) == 0:
        raise RespikeError("there is no batch to train on", f"lower the batch size, now {config.batch_size}")
    config = config.for_network(model.config.name)
    accelerator = make_accelerator(config)
    if resume and (finished := on_main_process(accelerator, lambda: find_finished(out, config, data))):
        return finished
    if accelerator.is_main_process and (ignored := describe_ignored_environment(config)):
        progress.warn(ignored)
    with _open_run_folder(accelerator, out, resume=resume) as folder:
        set_seed(config.seed, device_specific=True)
        num_updates = config.epochs * math.ceil(len(train) / config.accumulation_steps)
        trainer = Trainer(
            make_state(model, config, accelerator, num_updates=num_updates, seen_videos=seen_videos),
            train,
            config,
            out=out,
            data=data,
            folder=folder,
            validate=validate,
            progress=progress,
            should_stop=should_stop,
        )
        trainer.start(extra_files or {}, resume=resume)
        trainer.train()
    return _make_result(out, trainer.state.best_epoch, trainer.state.history)


def find_finished(out: Path, config: TrainConfig, data: DataSpec) -> TrainResult | None:
    """Return the result of the run in `out` if it is complete; None if it is not, or if `config` has more epochs.

    Raises MismatchError if it was made with other settings or on other data.
    """
    finished = read_finished(out, config, data)
    if finished is None:
        return None
    clear_state(out)
    return _make_result(out, *finished)


def _make_result(out: Path, best_epoch: int, history: Iterable[EpochRecord]) -> TrainResult:
    return TrainResult(
        out=out, best=out / BEST_NAME, last=out / LAST_NAME, best_epoch=best_epoch, history=tuple(history)
    )


def _open_run_folder(accelerator: Accelerator, out: Path, *, resume: bool) -> AbstractContextManager[RunFolder | None]:
    """Open the folder in the main process. An error is raised in every process."""
    opened: list[RunFolder] = []
    on_main_process(accelerator, lambda: opened.append(RunFolder(out, resume=resume)))
    return opened[0] if opened else nullcontext()


def on_main_process(accelerator: Accelerator, call: Callable[[], T]) -> T:
    """Call a function in the main process; return what it returns, or raise its RespikeError, in every process."""
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


@contextmanager
def _full_precision(model: nn.Module) -> Iterator[None]:
    """Compute in this block without the mixed precision that accelerate has put around the model's forward method."""
    in_mixed_precision = vars(model).pop("forward", None)
    try:
        yield
    finally:
        if in_mixed_precision is not None:
            model.forward = in_mixed_precision


@dataclass(frozen=True)
class _Totals:
    """Sums over an epoch's clips so far, of all processes."""

    loss_times_clips: float = 0.0
    num_correct: float = 0.0
    num_clips: float = 0.0

    @property
    def loss(self) -> float:
        """Mean cross-entropy of a clip."""
        return self.loss_times_clips / self.num_clips

    @property
    def accuracy(self) -> float:
        """Share of correct clips, 0 to 1."""
        return self.num_correct / self.num_clips


class Trainer:
    """One training: its state, its batches and its run folder. Each process has its own Trainer.

    `folder` is the run folder at `out`, open for writing; only the main process has it. The other arguments are those
    of `fit`. Call `start`, then `train`.
    """

    def __init__(
        self,
        state: TrainState,
        source: BatchSource,
        config: TrainConfig,
        *,
        out: Path,
        data: DataSpec,
        folder: RunFolder | None,
        validate: Validate | None,
        progress: Progress,
        should_stop: Callable[[], bool],
    ) -> None:
        self.state = state
        self.source = source
        self.config = config
        self._out = out
        self._data = data
        self._folder = folder
        self._validate = validate
        self._progress = progress if folder else SILENCE
        self._should_stop = should_stop
        self._accelerator = state.accelerator
        # the state's step at the next synchronisation; the time and step of the last one
        self._next_sync_step = 0
        self._last_sync = (0.0, 0)
        # the time and number of updates of the last save in this epoch, or of the epoch's start
        self._last_save = (0.0, 0)

    def start(self, extra_files: Mapping[str, str], *, resume: bool) -> None:
        """Restore the run if `resume` is set, and write its settings and `extra_files` to the folder."""
        state = self.state
        is_extended = resume and self._resume()
        # a refused resume must not change the settings in the folder, which the next resume reads
        self._on_folder(lambda folder: folder.write_config(self.config, state.model.config, self._data, extra_files))
        if is_extended:
            # a snapshot first: the last checkpoint no longer counts as the end of the run
            self.save()
        if state.history and len(state.history) == state.epoch:
            # the process may have been killed between the snapshot and the files of the epoch
            self._write_epoch()

    def train(self) -> None:
        """Train the epochs that are left.

        Raises DivergedError if the loss or a weight is not finite, StoppedError once `should_stop` is true.
        """
        state, num_batches = self.state, len(self.source)
        num_done = num_batches * len(state.history) + (state.step if len(state.history) < state.epoch else 0)
        num_left = self.config.epochs * num_batches - num_done
        with self._translate_lost_peer_errors():
            try:
                with self._progress.task("train", total=num_left, unit="batches") as task:
                    while len(state.history) < self.config.epochs:
                        self._run_epoch(task)
            finally:
                # removes mixed precision from the network's forward method
                self._accelerator.unwrap_model(state.wrapped_model, keep_fp32_wrapper=False)

    def _run_epoch(self, task: Task) -> None:
        """Train and validate one epoch, or the rest of it, and write its files."""
        state, metric = self.state, self.config.best_metric
        state.begin_epoch()
        totals = self.train_epoch(task)
        state.share_statistics()
        self._require_finite_weights()
        if self._validate is not None:
            # a validation may take long; a stop in it must not lose the epoch
            self.save()
        validation = self.validate()
        state.seen_videos = set(gather_object(sorted(state.seen_videos)))
        record = self._make_record(totals, validation)
        state.history.append(record)
        if record.rank(metric) > state.best_rank:
            state.best_rank, state.best_epoch = record.rank(metric), state.epoch
        self.save()
        self._write_epoch()
        summary = f"epoch {record.epoch}/{self.config.epochs}: loss {record.train_loss:.3f}, "
        summary += f"accuracy {record.train_accuracy:.3f}"
        if validation:
            summary += f", validation {metric} {validation[metric]:.3f}"
        best = " (best so far)" if state.best_epoch == state.epoch else ""
        self._progress.say(f"{summary}, {record.clips_per_second:.1f} clips/s{best}")

    def train_epoch(self, task: Task) -> _Totals:
        """Train from `state.step` to the end of the epoch and measure firing rates on its last batch."""
        state, config, num_batches = self.state, self.config, len(self.source)
        state.freeze_backbone(state.epoch <= config.freeze_backbone_epochs)
        state.set_train_mode()
        opened = time.perf_counter()
        batches = self._open_batches()
        now = time.perf_counter()
        state.seconds += now - opened
        state.waited_seconds += now - opened
        self._next_sync_step = state.step + 1
        self._last_sync, self._last_save = (now, state.step), (now, state.num_updates)
        totals = _Totals(*self._accelerator.reduce(state.sums).tolist())
        while state.step < num_batches:
            num_together = min(config.accumulation_steps, num_batches - state.step)
            batch = self.train_step(batches, num_together)
            if state.step == num_batches:
                # before the last synchronisation: if that stops the training, the snapshot must hold the rates
                with self._accelerator.autocast():
                    state.firing_rates = measure_firing_rates(state.model, batch.to(self._accelerator.device))
            if state.step >= self._next_sync_step or state.step == num_batches:
                totals = self._synchronise()
                epoch = f"{state.epoch}/{config.epochs}"
                task.advance(num_together, epoch=epoch, loss=totals.loss, accuracy=totals.accuracy)
            else:
                task.advance(num_together)
        # lets the source finish its pass and stop its workers
        next(batches, None)
        return totals

    def train_step(self, batches: Iterator[Batch], num_together: int) -> Batch:
        """Update the weights once, by the mean gradient of the next `num_together` batches; return the last of them."""
        state, config, device = self.state, self.config, self._accelerator.device
        started = time.perf_counter()
        for number in range(1, num_together + 1):
            asked = time.perf_counter()
            batch = next(batches)
            state.waited_seconds += time.perf_counter() - asked
            moved = batch.to(device, non_blocking=True)
            seed = (config.seed, state.epoch, state.step, self._accelerator.process_index)
            mixed = mix(moved, config.mixup_alpha, seed)
            logits = state.wrapped_model(mixed.batch.keys, mixed.batch.residuals, mixed.batch.color)
            loss = mixed.loss(logits, config.label_smoothing)
            state.backward(loss / num_together if num_together > 1 else loss, is_last=number == num_together)
            num_clips = moved.mask.sum()
            num_correct = (logits.argmax(dim=1) == mixed.main_labels).sum()
            state.sums += torch.stack([loss.detach() * num_clips, num_correct, num_clips])
            state.seen_videos.update(map(hash_video, batch.video_ids))
            state.step += 1
        state.update(config.max_grad_norm)
        state.seconds += time.perf_counter() - started
        return batch

    def validate(self) -> dict[str, float]:
        """Return the validation's scores of the network that is saved, in float32; empty without a validation.

        Raises RespikeError if they lack `config.best_metric`.
        """
        if self._validate is None:
            return {}
        model, metric = self.state.saved_model.eval(), self.config.best_metric
        # a loader draws from torch's random generator, see _open_batches
        with _full_precision(model), torch.random.fork_rng(devices=[]):
            validation = {name: float(value) for name, value in self._validate(model).items()}
        if metric not in validation:
            raise RespikeError(
                f"the validation gave no {metric!r} to choose the best epoch by",
                f"set best_metric to one of {', '.join(validation)}",
            )
        return validation

    def save(self) -> None:
        """Save a snapshot. Every process must call this. Raises DivergedError if a weight is not finite."""
        self._require_finite_weights()
        snapshot = take_snapshot(self.state, self.source, self.config, self._data)
        self._on_folder(lambda folder: folder.write_snapshot(snapshot.to_bytes()))

    def _resume(self) -> bool:
        """Set the state to the newest snapshot or to the end of a complete run; return whether it was the latter."""
        state, config, progress = self.state, self.config, self._progress
        path = self._on_folder(lambda folder: folder.find_snapshot(progress))
        if path is None and self._on_folder(lambda folder: folder.is_finished()):
            self._extend_finished()
            return True
        if path is None:
            progress.say(f"nothing is saved in {self._out}: the training starts from the beginning")
            return False
        snapshot = read_snapshot(path)
        restore_snapshot(snapshot, state, self.source, config, self._data)
        # snapshots of early versions do not name it
        if (version := snapshot.facts.get("torch_version")) not in (None, torch.__version__):
            progress.warn(
                f"the run was saved with torch {version}, this is {torch.__version__}: results may differ slightly"
            )
        progress.say(f"resuming in epoch {state.epoch} of {config.epochs}, after update {state.num_updates:,}")
        if (num_epochs := snapshot.facts["config"]["epochs"]) != config.epochs:
            progress.say(self._describe_extension(num_epochs))
        return False

    def _extend_finished(self) -> None:
        """Set the new state to the end of the complete run in the folder. Every process calls this."""
        state, config = self.state, self.config
        model, spec = load_checkpoint(self._out / LAST_NAME)
        if model.config != state.model.config:
            raise MismatchError(
                f"the run {self._out} is of another network, {model.config.name} with branches {model.config.branches}",
                "resume it with its own network, or train in another folder",
            )
        for target in (state.model, state.saved_model):
            target.load_state_dict(model.state_dict())
        state.history = list(read_history(self._out))
        state.epoch, state.step = spec.epoch, len(self.source)
        state.num_updates = spec.epoch * math.ceil(len(self.source) / config.accumulation_steps)
        best = max(state.history, key=lambda record: record.rank(config.best_metric))
        state.best_epoch, state.best_rank = best.epoch, best.rank(config.best_metric)
        state.seen_videos |= set(spec.train_videos)
        state.scheduler.step_update(state.num_updates)
        self._progress.say(f"{self._describe_extension(spec.training['epochs'])}; the optimizer starts again")

    def _describe_extension(self, num_epochs: int) -> str:
        epochs, schedule = self.config.epochs, self.config.schedule
        return (
            f"{epochs} epochs instead of {num_epochs}: the learning rate continues at {self.state.learning_rate:.3g}, "
            f"the value of a {schedule} schedule of {epochs} epochs at this point"
        )

    def _open_batches(self) -> Iterator[Batch]:
        """Return the epoch's batches from `state.step` on, with the first one already loaded.

        A DataLoader draws a seed from torch's generator when it is opened. The generator is restored afterwards, so
        that the network's random numbers do not depend on how often the training was resumed.
        """
        source, first = self.source, self.state.step
        position = source.state_dict() if first and isinstance(source, SeekableSource) else None
        source.set_epoch(self.state.epoch - 1)
        with torch.random.fork_rng(devices=[]):
            if position is not None and isinstance(source, SeekableSource):
                source.load_state_dict(position)
                batches = iter(source)
            else:
                batches = itertools.islice(iter(source), first, None)
            loaded = list(itertools.islice(batches, 1))
        return itertools.chain(loaded, batches)

    def _synchronise(self) -> _Totals:
        """Add up the sums of all processes, and save or stop if any of them asks for it."""
        state = self.state
        now, (last_time, last_step) = time.perf_counter(), self._last_sync
        seconds_per_batch = (now - last_time) / max(1, state.step - last_step)
        flags = torch.tensor(
            [float(self._should_stop()), float(self._is_save_due(now)), seconds_per_batch], device=state.sums.device
        )
        # every process reads the same sums, so that all of them save, stop and continue at the same step
        *sums, stop, save, all_seconds = self._accelerator.reduce(torch.cat([state.sums, flags])).tolist()
        totals = _Totals(*sums)
        if not math.isfinite(totals.loss):
            raise self._diverged(f"the loss became {totals.loss} in epoch {state.epoch}, by batch {state.step}")
        if stop or save:
            self.save()
            self._last_save = (time.perf_counter(), state.num_updates)
        if stop:
            raise StoppedError(
                f"training stopped in epoch {state.epoch} of {self.config.epochs}, after batch {state.step} of "
                f"{len(self.source)}; it is saved in {self._out}",
                "resume it to continue from there",
            )
        num_batches = _SECONDS_PER_SYNC * self._accelerator.num_processes / max(all_seconds, 1e-9)
        self._next_sync_step = state.step + int(min(max(1.0, num_batches), _MAX_BATCHES_PER_SYNC))
        self._last_sync = (time.perf_counter(), state.step)
        return totals

    def _is_save_due(self, now: float) -> bool:
        if self.state.step == len(self.source):  # the end of an epoch is saved anyway
            return False
        minutes, updates = self.config.save_every_minutes, self.config.save_every_updates
        saved_at, saved_updates = self._last_save
        return (minutes is not None and now - saved_at >= 60 * minutes) or (
            updates is not None and self.state.num_updates - saved_updates >= updates
        )

    def _require_finite_weights(self) -> None:
        """Raise DivergedError if a weight is not finite: the last update may do this although every loss was finite.

        Every process must call this. Each has its own statistics of batch norms, so that they decide together.
        """
        tensors = [value for value in self.state.model.state_dict().values() if value.is_floating_point()]
        is_broken = ~torch.stack([value.isfinite().all() for value in tensors]).all()
        if self._accelerator.reduce(is_broken.float()).item():
            raise self._diverged(f"weights became infinite or not a number in epoch {self.state.epoch}")

    def _diverged(self, problem: str) -> DivergedError:
        kept = "no epoch was finished"
        if self.state.history:
            kept = f"the last good checkpoint is {self._out / LAST_NAME}"
        rate = f"lower the learning rate, now {self.config.learning_rate:g}, and train again"
        return DivergedError(problem, f"{kept}; {rate}")

    def _on_folder(self, call: Callable[[RunFolder], T]) -> T | None:
        """Call a function of the run folder in the main process; every process gets its result or its error."""
        return on_main_process(self._accelerator, lambda: call(self._folder) if self._folder else None)

    def _write_epoch(self) -> None:
        """Write checkpoints and history of the last epoch."""
        state, spec = self.state, self._make_spec()
        names = (LAST_NAME, BEST_NAME) if state.best_epoch == state.epoch else (LAST_NAME,)

        def write(folder: RunFolder) -> None:
            for name in names:
                save_checkpoint(self._out / name, state.saved_model, spec)
            folder.write_history(state.history)

        self._on_folder(write)

    def _make_spec(self) -> CheckpointSpec:
        state = self.state
        return CheckpointSpec(
            model=to_plain(state.model.config),
            image_size=self.config.resolved_image_size,
            data=self._data,
            training=self.config.to_json(),
            epoch=state.epoch,
            scores=dict(state.history[-1].validation),
            train_videos=tuple(sorted(state.seen_videos)),
        )

    def _make_record(self, totals: _Totals, validation: Mapping[str, float]) -> EpochRecord:
        state = self.state
        rates_before = state.history[-1].firing_rates if state.history else {}
        for message in describe_abnormal_layers(state.firing_rates, rates_before):
            self._progress.warn(f"epoch {state.epoch}: {message}")
        return EpochRecord(
            epoch=state.epoch,
            train_loss=totals.loss,
            train_accuracy=totals.accuracy,
            # a snapshot of an earlier version does not hold the rate of the last update
            learning_rate=state.learning_rate if state.used_learning_rate is None else state.used_learning_rate,
            seconds=state.seconds,
            clips_per_second=totals.num_clips / state.seconds,
            validation=validation,
            waited_share=min(1.0, state.waited_seconds / state.seconds),
            memory_bytes=measure_peak_memory(self._accelerator.device),
            firing_rates=dict(state.firing_rates),
            amp=self.config.amp,
        )

    @contextmanager
    def _translate_lost_peer_errors(self) -> Iterator[None]:
        """Turn torch's errors about another process that is gone into a RespikeError."""
        try:
            yield
        except RuntimeError as error:
            text = str(error)
            if self._accelerator.num_processes == 1 or not any(part in text.lower() for part in _LOST_PEER_MESSAGES):
                raise
            # gloo's message begins with a place in its source and ends with advice to developers
            reason = re.sub(r"^\[[^]]*\]\s*", "", text.splitlines()[0]).split(". ")[0]
            raise RespikeError(
                f"another process of the training is gone: {reason}",
                f"read that process's own error; the run in {self._out} can be resumed",
            ) from error
