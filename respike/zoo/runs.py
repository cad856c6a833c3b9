"""Runs: what lies in a folder of trainings, one summary a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike.errors import RespikeError
from respike.zoo.checkpoint import CheckpointSpec, read_spec
from respike.zoo.history import HISTORY_NAME, EpochRecord, read_history
from respike.zoo.run_folder import BEST_NAME, CONFIG_NAME, STATE_NAME


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run, from its best checkpoint and its history.

    `status` is `done`, `stopped` (it can be resumed, or is under way) or `ended` (before its last epoch, nothing
    saved). `settings` are those of the training, with the network and the branches.
    """

    folder: Path
    status: str
    num_epochs: int
    wanted_epochs: int
    best: EpochRecord
    last: EpochRecord
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
            "num_epochs": self.num_epochs,
            "wanted_epochs": self.wanted_epochs,
            "best": self.best.to_json(),
            "last": self.last.to_json(),
            "seconds": self.seconds,
            "dataset": self.dataset,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
        }


def find_runs(root: Path) -> list[Path]:
    """Return the folders of runs under `root`, at any depth, sorted; those that have finished no epoch are not told."""
    return sorted(path.parent for path in root.rglob(HISTORY_NAME) if (path.parent / CONFIG_NAME).exists())


def summarise_run(folder: Path) -> RunSummary:
    """Read the run in `folder`. Raises RespikeError where there is none, or one whose files do not fit together."""
    history = read_history(folder)
    if not history:
        raise RespikeError(f"the run {folder} has finished no epoch", "let it train on, with --resume")
    spec = read_spec(folder / BEST_NAME)
    wanted = int(spec.training.get("epochs", len(history)))
    return RunSummary(
        folder=folder,
        status=_status(folder, len(history), wanted),
        num_epochs=len(history),
        wanted_epochs=wanted,
        best=history[min(spec.epoch, len(history)) - 1],
        last=history[-1],
        seconds=sum(record.seconds for record in history),
        dataset=spec.data.dataset,
        split=spec.data.split,
        fingerprint=spec.data.fingerprint,
        settings=_settings(spec),
    )


def differing_settings(runs: list[RunSummary]) -> dict[str, list[Any]]:
    """Return the settings in which `runs` are not all alike, each with its value in every run."""
    names = sorted({name for run in runs for name in run.settings})
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _settings(spec: CheckpointSpec) -> dict[str, Any]:
    clip = {name: spec.data.settings[name] for name in ("stride", "threshold", "color") if name in spec.data.settings}
    return {**dict(spec.training), "network": spec.model["name"], "branches": spec.model["branches"], **clip}


def _status(folder: Path, num_epochs: int, wanted: int) -> str:
    if num_epochs >= wanted and not (folder / STATE_NAME).exists():
        return "done"
    return "stopped" if (folder / STATE_NAME).exists() else "ended"
