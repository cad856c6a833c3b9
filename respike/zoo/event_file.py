"""Event file: the epochs of a training as TensorBoard events."""

import io
import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from respike.common.files import write_error
from respike.zoo.history import EpochRecord


class EventFile:
    """A new file of TensorBoard events in `folder`. From `first_epoch` on it replaces the events of older files.

    Every write reaches the file at once. Raises RespikeError if the disk refuses.
    """

    # Not torch.utils.tensorboard.SummaryWriter: it writes in a thread, so that on a full disk the thread ends with a
    # traceback and the error appears a second time in a later call.

    def __init__(self, folder: Path, *, first_epoch: int = 1) -> None:
        # TensorBoard reads the files in the order of their names, so the newest must come last
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(exist_ok=True)
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise write_error(self._path, error) from error
        self._append(Event(file_version="brain.Event:2"))
        if first_epoch > 1:
            self._append(Event(step=first_epoch, session_log=SessionLog(status=SessionLog.START)))

    def write(self, record: EpochRecord) -> None:
        """Write the scalars of one epoch."""
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
        self._append(Event(step=record.epoch, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        content = io.BytesIO()
        RecordWriter(content).write(event.SerializeToString())
        rest = memoryview(content.getvalue())
        try:
            # a disk that fills up writes a part and reports it; the next call then raises
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise write_error(self._path, error) from error
