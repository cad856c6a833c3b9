"""Runs: what lies in a folder of trainings, one summary a run, those that have finished no epoch among them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike.errors import RespikeError
from respike.files import lock_owner
from respike.zoo.checkpoint_spec import read_spec
from respike.zoo.history import HISTORY_NAME, EpochRecord, read_history
from respike.zoo.run_folder import CONFIG_NAME, LAST_NAME, LOCK_NAME, STATE_NAME, holds_run, read_description
from respike.zoo.snapshot_folder import SnapshotFolder

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
