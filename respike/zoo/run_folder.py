"""Run folder: the files that a training leaves, and how they are written and read. Loads no torch."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from respike.common.config import to_plain
from respike.common.errors import CheckpointError, MismatchError, RespikeError
from respike.common.files import (
    canonical_json,
    folder_lock,
    lock_owner,
    sha256_of_bytes,
    sha256_of_file,
    write_atomically,
)
from respike.common.progress import Progress
from respike.types import DataSpec
from respike.zoo.checkpoint_spec import CheckpointSpec, read_spec
from respike.zoo.history import HISTORY_NAME, EpochRecord, read_history, write_history
from respike.zoo.train_config import FREE_ON_RESUME, TrainConfig

if TYPE_CHECKING:
    from respike.zoo.event_file import EventFile
    from respike.zoo.nn.config import ModelConfig

BEST_NAME = "best.safetensors"
LAST_NAME = "last.safetensors"
CONFIG_NAME = "config.json"
RECIPE_NAME = "recipe.toml"
REQUEST_NAME = "request.json"
TENSORBOARD_NAME = "tensorboard"
STATE_NAME = "state"
LOCK_NAME = "training.lock"
# a snapshot's number and the start of its SHA-256
_SNAPSHOT = re.compile(r"(\d{8})-([0-9a-f]{32})\.safetensors")
_NUM_HASH_DIGITS = 32


class RunFolder:
    """Writes the folder of one run, which it locks against other processes. Use it as a context manager.

    `config.json` is written when the training starts; checkpoints, `history.jsonl` and TensorBoard events after each
    epoch. `state/` holds the lock, and snapshots of a training that is not complete.

    Raises RespikeError if the folder already holds a run (unless `resume` is set), is in use or cannot be made.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._folder = folder
        self._state = folder / STATE_NAME
        self._events: EventFile | None = None
        self._lock = ExitStack()
        if not resume and holds_run(folder):
            raise RespikeError(
                f"{folder} holds a run already", "resume it, choose another output folder, or move it away"
            )
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(folder_lock(self._state / LOCK_NAME, "respike train"))
        except OSError as error:
            raise RespikeError(f"cannot make {folder}: {error.strerror}", "choose another output folder") from error
        # unfinished files of a process that was killed
        for path in [*folder.glob(".*.tmp"), *self._state.glob(".*.tmp")]:
            path.unlink(missing_ok=True)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(is_done=kind is None)

    def write_config(
        self, config: TrainConfig, model: "ModelConfig", data: DataSpec, extra_files: Mapping[str, str]
    ) -> None:
        """Write the settings of the run to `config.json`, and the texts of `extra_files` to files of these names."""
        facts = {"training": config.to_json(), "model": to_plain(model), "data": to_plain(data)}
        # a resume reads the extra files; they come first, so that after a crash it uses the newest settings
        for name, text in (dict(extra_files) | {CONFIG_NAME: canonical_json(facts, indent=2)}).items():
            write_atomically(self._folder / name, text)

    def write_history(self, records: Sequence[EpochRecord]) -> None:
        """Write the history of all epochs, the last of which is new, and the last one's TensorBoard events."""
        write_history(self._folder, records)
        if self._events is None:
            # only a training needs TensorBoard, whose import takes long
            from respike.zoo.event_file import EventFile

            self._events = EventFile(self._folder / TENSORBOARD_NAME, first_epoch=len(records))
        self._events.write(records[-1])

    def write_snapshot(self, content: bytes) -> None:
        """Write a snapshot as `state/NUMBER-HASH.safetensors`. The one before it stays, older ones are removed."""
        older = list_snapshots(self._folder)
        number = 1 + max((int(path.name.partition("-")[0]) for path in older), default=0)
        name = f"{number:08d}-{sha256_of_bytes(content)[:_NUM_HASH_DIGITS]}.safetensors"
        write_atomically(self._state / name, content)
        for path in older[1:]:
            path.unlink(missing_ok=True)

    def find_snapshot(self, progress: Progress) -> Path | None:
        """Return the newest snapshot that is undamaged, None if there is none. Removes damaged ones with a warning.

        Raises CheckpointError if all are damaged.
        """
        paths = list_snapshots(self._folder)
        for number, path in enumerate(paths):
            if _is_undamaged(path):
                for damaged in paths[:number]:
                    progress.warn(f"{damaged} is damaged: resuming from the snapshot before it, {path.name}")
                    damaged.unlink()
                return path
        if paths:
            raise CheckpointError(
                f"every saved state of the training is damaged: {', '.join(map(str, paths))}",
                f"remove {self._folder} and train again, or start a new run from its {LAST_NAME}",
            )
        return None

    def is_finished(self) -> bool:
        """Whether the run has made all its epochs, by the settings in its last checkpoint."""
        return _read_done(self._folder) is not None

    def close(self, *, is_done: bool) -> None:
        """Close the files and release the lock. Removes `state/` if `is_done` or if it holds no snapshot."""
        if self._events is not None:
            self._events.close()
        # remove before the lock is released: another process may take it at once
        with self._lock:
            if is_done or not list_snapshots(self._folder):
                shutil.rmtree(self._state, ignore_errors=True)


def list_snapshots(folder: Path) -> list[Path]:
    """Return the snapshots of the run in `folder`, the newest first."""
    return sorted((path for path in (folder / STATE_NAME).glob("*") if _SNAPSHOT.fullmatch(path.name)), reverse=True)


def _is_undamaged(path: Path) -> bool:
    match = _SNAPSHOT.fullmatch(path.name)
    return match is not None and sha256_of_file(path).startswith(match[2])


def clear_state(folder: Path) -> None:
    """Remove what a process that was killed left in `state/` of the run in `folder`, which is complete."""
    if (folder / STATE_NAME).exists():
        # a process that has the lock removes the folder itself
        with suppress(RespikeError):
            RunFolder(folder, resume=True).close(is_done=True)


def holds_run(folder: Path) -> bool:
    """Whether `folder` holds results of a training: an epoch or a snapshot."""
    return any((folder / name).exists() for name in (HISTORY_NAME, LAST_NAME, BEST_NAME)) or bool(
        list_snapshots(folder)
    )


def is_running(folder: Path) -> bool:
    """Whether a process trains in `folder`. One on another machine counts as running until it removes its lock."""
    return find_run_host(folder) is not None


def find_run_host(folder: Path) -> str | None:
    """Return the name of the machine whose process trains in `folder`, None if there is none."""
    return lock_owner(folder / STATE_NAME / LOCK_NAME)


def read_finished(folder: Path, config: TrainConfig, data: DataSpec) -> tuple[int, tuple[EpochRecord, ...]] | None:
    """Return the best epoch and the history of a complete run; None if it is not complete or `config` has more epochs.

    Raises MismatchError if it was made with other settings or on other data.
    """
    if (done := _read_done(folder)) is None:
        return None
    last, history = done
    # a setting that is younger than the run had its default
    before = TrainConfig().to_json() | dict(last.training)
    given = config.to_json()
    changed = [name for name in given if name not in FREE_ON_RESUME and given[name] != before[name]]
    if last.data != data:
        changed.append("data")
    if changed == ["epochs"] and config.epochs > last.epoch:
        return None
    if changed:
        raise MismatchError(
            f"the run {folder} is complete, but it differs in {', '.join(changed)}",
            "train in another folder, or start a new run from its checkpoint",
        )
    return read_spec(folder / BEST_NAME).epoch, history


def _read_done(folder: Path) -> tuple[CheckpointSpec, tuple[EpochRecord, ...]] | None:
    """Return the last checkpoint's spec and the history of a run that has made all its epochs."""
    if list_snapshots(folder) or not (folder / LAST_NAME).exists():
        return None
    last, history = read_spec(folder / LAST_NAME), read_history(folder)
    if last.epoch < last.training.get("epochs", 0) or len(history) != last.epoch:
        return None
    return last, history


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run in short.

    - `status`: `done`, `running`, `stopped` (it can be resumed) or `ended` (before its last epoch, with no snapshot).
    - `host`: the machine that it is running on. A run of another machine counts as running as long as its lock is
      there, since its process cannot be seen from here.
    - `best`, `last`: records of the best and the last epoch; None if no epoch was finished.
    - `settings`: those of the training by their names, of the network as `model.…`, of the shards as `data.…`.
    """

    folder: Path
    status: str
    host: str | None
    num_epochs: int
    wanted_epochs: int
    best: EpochRecord | None
    last: EpochRecord | None
    seconds: float
    dataset: str
    split: int | None
    fingerprint: str
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return dict(to_plain(self)) | {"folder": str(self.folder)}


_CONFIG_KEYS = {"training", "model", "data"}
# `classes` may be hundreds of names; `settings` are listed beside the others
_LEFT_OUT = {"classes", "settings"}


def find_runs(root: Path) -> list[Path]:
    """Return the folders of runs under `root`, at any depth, sorted."""
    return sorted(path.parent for path in root.rglob(CONFIG_NAME) if _is_run(path.parent))


def _is_run(folder: Path) -> bool:
    if holds_run(folder):
        return True
    try:
        # published weights have a config.json as well
        return _read_config(folder).keys() >= _CONFIG_KEYS
    except RespikeError:
        return False


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if not folder.is_dir():
        raise RespikeError(f"there is no run {folder}", "`respike runs` lists those under runs/")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RespikeError(f"{folder} holds no {CONFIG_NAME}", "give the folder of a run of `respike train`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RespikeError(f"cannot read {path}: {error}", "the run may have been changed by hand") from error
    return facts if isinstance(facts, dict) else {}


def summarise_run(folder: Path) -> RunSummary:
    """Summarise the run in `folder`. Raises RespikeError if there is none or its files are damaged."""
    facts = _read_config(folder)
    if not facts.keys() >= _CONFIG_KEYS and (folder / LAST_NAME).is_file():
        # a run of an early version
        spec = read_spec(folder / LAST_NAME)
        facts = {"training": to_plain(spec.training), "model": to_plain(spec.model), "data": to_plain(spec.data)}
    history = read_history(folder) if (folder / HISTORY_NAME).exists() else ()
    host = find_run_host(folder)
    try:
        training, data = facts["training"], facts["data"]
        wanted, metric = int(training["epochs"]), training["best_metric"]
        if host is not None:
            status = "running"
        elif list_snapshots(folder):
            status = "stopped"
        else:
            status = "done" if len(history) >= wanted else "ended"
        return RunSummary(
            folder=folder,
            status=status,
            host=host,
            num_epochs=len(history),
            wanted_epochs=wanted,
            best=max(history, key=lambda record: record.rank(metric), default=None),
            last=history[-1] if history else None,
            seconds=sum((record.seconds for record in history), start=0.0),
            dataset=data["dataset"],
            split=data["split"],
            fingerprint=data["fingerprint"],
            settings={
                **training,
                **_flatten("model", facts["model"]),
                **_flatten("data", {**data, **data["settings"]}),
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RespikeError(
            f"{folder / CONFIG_NAME} does not describe a training: {type(error).__name__} {error}",
            "it may be from another version of respike, or changed by hand",
        ) from error


def _flatten(name: str, value: Any) -> dict[str, Any]:
    """Return the leaves of nested mappings, named `name.key.key`."""
    if not isinstance(value, Mapping):
        return {name: value}
    parts = ((key, part) for key, part in value.items() if key not in _LEFT_OUT)
    return {path: leaf for key, part in parts for path, leaf in _flatten(f"{name}.{key}", part).items()}


def differing_settings(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Return the settings that differ between `runs`, each with its value in every run (None if it has none)."""
    names = sorted({name for run in runs for name in run.settings})
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}
