"""History: what each epoch of a training gave, on disk as lines and as TensorBoard events."""

import dataclasses
import io
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from respike.common.errors import RespikeError
from respike.common.files import canonical_json, write_atomically, write_error

HISTORY_NAME = "history.jsonl"
TENSORBOARD_NAME = "tensorboard"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch, counted from 1.

    `train_loss` is the mean cross-entropy and `train_accuracy` (0 to 1) the share of clips told right, both over the
    epoch's clips as they were seen, augmented, while the weights moved. `learning_rate` is that of the last update.
    `validation` holds what the validation gave. `seconds` and `clips_per_second` (of all processes) are of the
    training alone, without validation; `waited_share` (0 to 1) is the part of that time in which the loader was waited
    for, `memory_bytes` the most that the main process has held at once, on its accelerator if it has one.
    `firing_rates` (0 to 1) are those of each spiking layer on the epoch's last batch. `amp` is the mixed precision of
    training and validation alike, None where an earlier respike did not say.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    learning_rate: float
    seconds: float
    clips_per_second: float
    validation: Mapping[str, float] = field(default_factory=dict)
    waited_share: float = 0.0
    memory_bytes: int = 0
    firing_rates: Mapping[str, float] = field(default_factory=dict)
    amp: str | None = None

    def rank(self, metric: str) -> tuple[float, float]:
        """What the best epoch has most of: the `metric` of the validation, then the least loss there.

        Among equals in the metric the surer network is the better. Without a validation the best is the last.
        """
        if not self.validation:
            return float(self.epoch), 0.0
        return self.validation[metric], -self.validation.get("loss", 0.0)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        mappings = {"validation": dict(self.validation), "firing_rates": dict(self.firing_rates)}
        return dataclasses.asdict(self) | mappings


class History:
    """Writes the epochs of one run into its folder, one line and one TensorBoard step an epoch.

    What TensorBoard events hold from `first_epoch` on is struck out: it is about to be written again. Raises
    RespikeError where the disk refuses.
    """

    def __init__(self, folder: Path, *, first_epoch: int = 1) -> None:
        self._path = folder / HISTORY_NAME
        self._events = _EventFile(folder / TENSORBOARD_NAME)
        if first_epoch > 1:
            self._events.write([Event(step=first_epoch, session_log=SessionLog(status=SessionLog.START))])

    def write(self, records: list[EpochRecord]) -> None:
        """Put down all epochs so far; the last one is new."""
        # the file is small, and written whole it never ends in half a line
        write_atomically(self._path, "".join(canonical_json(record.to_json()) + "\n" for record in records))
        self._events.write([_to_event(records[-1])])

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._events.close()


def _to_event(record: EpochRecord) -> Event:
    scalars = {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "train/learning_rate": record.learning_rate,
        "train/clips_per_second": record.clips_per_second,
        "train/waited_share": record.waited_share,
        "train/memory_gigabytes": record.memory_bytes / 1e9,
        **{f"validation/{name}": value for name, value in record.validation.items()},
        **{f"firing_rate/{name}": value for name, value in record.firing_rates.items()},
    }
    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    return Event(step=record.epoch, summary=Summary(value=values))


class _EventFile:
    """A file of TensorBoard events, written at once: a full disk ends the thread of torch's writer in a traceback."""

    def __init__(self, folder: Path) -> None:
        # the files are read in the order of their names, and what the last one strikes out is in those before it
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(exist_ok=True)
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise write_error(self._path, error) from error
        self.write([Event(file_version="brain.Event:2")])

    def write(self, events: Iterable[Event]) -> None:
        content = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            RecordWriter(content).write(event.SerializeToString())
        rest = memoryview(content.getvalue())
        try:
            # what fits on a disk that fills is written and counted; the error comes with what does not
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise write_error(self._path, error) from error

    def close(self) -> None:
        self._file.close()


def read_history(folder: Path) -> tuple[EpochRecord, ...]:
    """Read the epochs of the run in `folder`. Raises RespikeError where there is no whole history."""
    path = folder / HISTORY_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(EpochRecord(**json.loads(line)) for line in lines)
    except FileNotFoundError:
        raise RespikeError(f"{folder} holds no {HISTORY_NAME}", "give the folder of a run of `respike train`") from None
    except (OSError, ValueError, TypeError) as error:
        raise RespikeError(f"cannot read {path}: {error}", "the run may have been changed by hand") from error
