"""Run folder: what a training leaves on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from respike.common.errors import MismatchError, RespikeError
from respike.common.files import canonical_json

if TYPE_CHECKING:
    from respike.types import DataSpec
    from respike.zoo.checkpoint import CheckpointSpec
    from respike.zoo.nn.respike import ReSpike

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from respike.common.files import folder_lock, lock_owner, write_atomically
from respike.common.progress import Progress
from respike.types import DataSpec
from respike.zoo.checkpoint import save_checkpoint
from respike.zoo.checkpoint_spec import CheckpointSpec, read_spec
from respike.zoo.history import HISTORY_NAME, EpochRecord, History, read_history
from respike.zoo.nn.config import ModelConfig
from respike.zoo.nn.respike import ReSpike
from respike.zoo.snapshot import Snapshot, SnapshotFolder
from respike.zoo.train_config import FREE_ON_RESUME, TrainConfig

BEST_NAME = "best.safetensors"
LAST_NAME = "last.safetensors"
CONFIG_NAME = "config.json"
STATE_NAME = "state"
LOCK_NAME = "training.lock"


class RunFolder:
    """Holds the folder of one run, for this process alone, and writes it; used as a context manager.

    `config.json` comes as soon as the training has begun, then after each epoch checkpoints, `history.jsonl` and
    TensorBoard events; `state/` holds snapshots while it is under way. Raises RespikeError where the folder holds a run
    already (unless it is to `resume`), is in use or cannot be made.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._folder = folder
        self._snapshots = SnapshotFolder(folder / STATE_NAME)
        if not resume and holds_run(folder):
            raise RespikeError(
                f"{folder} holds a run already", "go on with it by --resume, give another --out, or move it away"
            )
        self._held = ExitStack()
        try:
            (folder / STATE_NAME).mkdir(parents=True, exist_ok=True)
            self._held.enter_context(folder_lock(folder / STATE_NAME / LOCK_NAME, "respike train"))
        except OSError as error:
            raise RespikeError(f"cannot make {folder}: {error.strerror}", "give another --out") from error
        # what a killed process was about to write
        for half in [*folder.glob(".*.tmp"), *(folder / STATE_NAME).glob(".*.tmp")]:
            half.unlink(missing_ok=True)
        self._history: History | None = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(is_done=kind is None)

    def describe(self, config: TrainConfig, model: ModelConfig, data: DataSpec, beside: Mapping[str, str]) -> None:
        """Write how the run was begun: the texts of `beside` by their file names, and `config.json`."""
        facts = {"training": config.to_json(), "model": model.to_json(), "data": data.to_json()}
        # what a resume goes by first: cut between two of the files, it is still resumed as it was last asked for
        for name, text in (dict(beside) | {CONFIG_NAME: canonical_json(facts, indent=2)}).items():
            write_atomically(self._folder / name, text)

    def find_snapshot(self, progress: Progress) -> Path | None:
        """Return the newest whole snapshot, None where there is none."""
        return self._snapshots.find_newest(progress)

    def is_finished(self) -> bool:
        """Whether the run was done, by the settings of its last checkpoint."""
        return _read_done(self._folder) is not None

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Save where the training stands."""
        self._snapshots.write(snapshot)

    def write_epoch(self, model: ReSpike, spec: CheckpointSpec, records: list[EpochRecord], *, is_best: bool) -> None:
        """Save the weights as the last, and as the best if they are, then the history; each file whole or absent."""
        for name in (LAST_NAME, BEST_NAME) if is_best else (LAST_NAME,):
            save_checkpoint(self._folder / name, model, spec)
        if self._history is None:
            self._history = History(self._folder, first_epoch=len(records))
        self._history.write(records)

    def close(self, *, is_done: bool) -> None:
        """Close the TensorBoard file and let go of the folder; if all is done, remove what was only for going on."""
        if self._history is not None:
            self._history.close()
        self._held.close()
        if is_done or not self._snapshots.list():
            self._snapshots.clear()


def holds_run(folder: Path) -> bool:
    """Whether a training has left something in `folder` that would be a loss."""
    # one that stopped before its first epoch ended and was not saved holds nothing to lose
    names = (HISTORY_NAME, LAST_NAME, BEST_NAME)
    return any((folder / name).exists() for name in names) or bool(SnapshotFolder(folder / STATE_NAME).list())


def read_description(folder: Path) -> dict[str, Any]:
    """Read what RunFolder.describe wrote. Raises RespikeError where there is nothing that can be read."""
    path = folder / CONFIG_NAME
    if not folder.is_dir():
        raise RespikeError(f"there is no run {folder}", "`respike runs` lists those under runs/")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RespikeError(f"{folder} holds no {CONFIG_NAME}", "give the folder of a run of `respike train`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RespikeError(f"cannot read {path}: {error}", "the run may have been changed by hand") from error
    return told if isinstance(told, dict) else {}


def clear_state(folder: Path) -> None:
    """Remove what the run in `folder`, which is done, kept for going on."""
    SnapshotFolder(folder / STATE_NAME).clear()


def read_finished(folder: Path, config: TrainConfig, data: DataSpec) -> tuple[int, tuple[EpochRecord, ...]] | None:
    """Return the best epoch and the history of a run that is done; None where it is not or `config` has more epochs.

    Raises MismatchError where it was made with other settings or on other data.
    """
    if (done := _read_done(folder)) is None:
        return None
    last, history = done
    kept = {name: value for name, value in config.to_json().items() if name not in FREE_ON_RESUME}
    # a run from before a setting came to be had its default
    had = TrainConfig().to_json() | dict(last.training)
    changed = [name for name, value in kept.items() if had[name] != value]
    if last.data != data:
        changed.append("data")
    if changed == ["epochs"] and config.epochs > last.epoch:
        return None
    if changed:
        raise MismatchError(
            f"the run {folder} is done, and was made otherwise: it differs in {', '.join(changed)}",
            "train anew into another folder, or start from it with --init",
        )
    return read_spec(folder / BEST_NAME).epoch, history


def _read_done(folder: Path) -> tuple[CheckpointSpec, tuple[EpochRecord, ...]] | None:
    """The last checkpoint's spec and the history of a run that has made all epochs it was to make."""
    if SnapshotFolder(folder / STATE_NAME).list() or not (folder / LAST_NAME).exists():
        return None
    last, history = read_spec(folder / LAST_NAME), read_history(folder)
    if last.epoch < last.training.get("epochs", 0) or len(history) != last.epoch:
        return None
    return last, history


_KEYS = {"training", "model", "data"}
# hundreds of names, which the fingerprint stands for; and what is spread out beside it
_LEFT_OUT = {"classes", "settings"}


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run, from what it says of itself and its history.

    `status` is `done`, `running`, `stopped` (there is a save to resume from) or `ended` (before its last epoch, and
    nothing is saved); `host` is the machine of one that is running. Whether a process on another machine still lives
    cannot be known here, and it counts as running. `best` and `last` are None where no epoch was finished. `settings`
    are those of the training by their names, of the network as `model.…`, of the shards as `data.…`.
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
        """The summary as plain JSON values."""
        return {
            "folder": str(self.folder),
            "status": self.status,
            "host": self.host,
            "num_epochs": self.num_epochs,
            "wanted_epochs": self.wanted_epochs,
            "best": self.best and self.best.to_json(),
            "last": self.last and self.last.to_json(),
            "seconds": self.seconds,
            "dataset": self.dataset,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
        }


def find_runs(root: Path) -> list[Path]:
    """Return the folders of runs under `root`, at any depth, sorted."""
    return sorted(path.parent for path in root.rglob(CONFIG_NAME) if _is_run(path.parent))


def _is_run(folder: Path) -> bool:
    if holds_run(folder):
        return True
    try:
        # published weights have a config.json as well
        return read_description(folder).keys() >= _KEYS
    except RespikeError:
        return False


def summarise_run(folder: Path) -> RunSummary:
    """Read the run in `folder`. Raises RespikeError where there is none, or one whose files do not fit together."""
    told = _describe(folder)
    history = read_history(folder) if (folder / HISTORY_NAME).exists() else ()
    try:
        training, data = told["training"], told["data"]
        wanted, metric = int(training["epochs"]), training["best_metric"]
        status, host = _status(folder, is_finished=len(history) >= wanted)
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
            settings={**training, **_flatten("model", told["model"]), **_flatten("data", {**data, **data["settings"]})},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RespikeError(
            f"{folder / CONFIG_NAME} does not describe a training: {type(error).__name__} {error}",
            "it may be another respike's, or changed by hand",
        ) from error


def _describe(folder: Path) -> dict[str, Any]:
    """What a run is: as its own file says, or, of a run by an earlier respike, its last checkpoint."""
    told = read_description(folder)
    if told.keys() >= _KEYS or not (folder / LAST_NAME).is_file():
        return told
    spec = read_spec(folder / LAST_NAME)
    return {"training": dict(spec.training), "model": dict(spec.model), "data": spec.data.to_json()}


def differing_settings(runs: list[RunSummary]) -> dict[str, list[Any]]:
    """Return the settings in which `runs` are not all alike, each with its value in every run (None: it has none)."""
    names = sorted({name for run in runs for name in run.settings})
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _flatten(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    parts = ((key, part) for key, part in value.items() if key not in _LEFT_OUT)
    return {path: each for key, part in parts for path, each in _flatten(f"{name}.{key}", part).items()}


def _status(folder: Path, *, is_finished: bool) -> tuple[str, str | None]:
    if owner := lock_owner(folder / STATE_NAME / LOCK_NAME):
        return "running", owner
    if SnapshotFolder(folder / STATE_NAME).list():
        return "stopped", None
    return ("done" if is_finished else "ended"), None


RUNS_ROOT = Path("runs")


RECIPE_NAME = "recipe.toml"


REQUEST_NAME = "request.json"
