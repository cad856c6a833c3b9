"""History: what each epoch of a training measured, as a file of JSON lines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from respike.common.config import from_plain, to_plain
from respike.common.errors import RespikeError, SettingError
from respike.common.files import canonical_json, write_atomically

HISTORY_NAME = "history.jsonl"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch measured.

    - `epoch`: counted from 1. `learning_rate`: that of the last update.
    - `train_loss`: mean cross-entropy of a clip; `train_accuracy`: top-1, 0 to 1. Both are over the epoch's clips as
      they were trained on: augmented, and while the weights changed.
    - `validation`: the scores that the validation returned.
    - `seconds`, `clips_per_second` (of all processes): training without validation. `waited_share` (0 to 1): the part
      of that time spent waiting for the loader.
    - `memory_bytes`: the largest memory use of the main process so far, on its accelerator if it has one.
    - `firing_rates` (0 to 1): mean spikes per neuron and step of each spiking layer, on the epoch's last batch.
    - `amp`: mixed precision of the training; None if an earlier version did not save it. The validation is in float32;
      in earlier versions it was in that precision too.
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
        """Return a key that is greatest for the best epoch: the validation's `metric`, then its negative loss.

        Without a validation the last epoch is the best.
        """
        if not self.validation:
            return float(self.epoch), 0.0
        return self.validation[metric], -self.validation.get("loss", 0.0)


def write_history(folder: Path, records: Sequence[EpochRecord]) -> None:
    """Write all epochs of the run in `folder`. Raises RespikeError if the disk refuses."""
    # the file is small; written as a whole it never ends in half a line
    write_atomically(folder / HISTORY_NAME, "".join(canonical_json(to_plain(record)) + "\n" for record in records))


def read_history(folder: Path) -> tuple[EpochRecord, ...]:
    """Read the epochs of the run in `folder`. Raises RespikeError if the history is missing or damaged."""
    path = folder / HISTORY_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(from_plain(EpochRecord, json.loads(line)) for line in lines)
    except FileNotFoundError:
        raise RespikeError(f"{folder} holds no {HISTORY_NAME}", "give the folder of a run of `respike train`") from None
    except (OSError, ValueError, SettingError) as error:
        raise RespikeError(f"cannot read {path}: {error}", "the run may have been changed by hand") from error
