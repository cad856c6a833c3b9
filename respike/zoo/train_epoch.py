"""Train epoch: the updates of one epoch, from wherever it stands, saving and stopping between two of them."""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from respike.errors import StoppedError
from respike.progress import Task
from respike.sample import Batch
from respike.zoo.firing import measure_firing_rates
from respike.zoo.mixup import mix
from respike.zoo.seen import hash_video
from respike.zoo.snapshot import SeekableSource
from respike.zoo.train_run import TrainRun
from respike.zoo.train_state import TrainState

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
