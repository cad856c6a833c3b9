"""Train run: what stays the same from a training's first update to its last, and what its processes settle together."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from respike.batch_source import BatchSource
from respike.errors import DivergedError, RespikeError
from respike.progress import Progress
from respike.sample import DataSpec
from respike.zoo.run_folder import LAST_NAME, RunFolder
from respike.zoo.snapshot import take_snapshot
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_state import TrainState

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
def explained_loss(accelerator: Accelerator, out: Path) -> Iterator[None]:
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
