"""Run folder: what one training leaves on disk."""

from pathlib import Path

from respike.errors import RespikeError
from respike.files import canonical_json, write_atomically
from respike.zoo.checkpoint import CheckpointSpec, save_checkpoint
from respike.zoo.history import HISTORY_NAME, EpochRecord, History
from respike.zoo.nn.respike import ReSpike
from respike.zoo.train_config import TrainConfig

BEST_NAME = "best.safetensors"
LAST_NAME = "last.safetensors"
CONFIG_NAME = "config.json"


class RunFolder:
    """Writes one run: `config.json` at once, then after each epoch checkpoints, `history.jsonl` and TensorBoard events.

    Raises RespikeError where the folder holds a run already or cannot be made.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        # one that stopped before its first epoch ended holds nothing to lose
        if any((folder / name).exists() for name in (HISTORY_NAME, LAST_NAME, BEST_NAME)):
            raise RespikeError(f"{folder} holds a run already", "give another --out, or move that run away")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RespikeError(f"cannot make {folder}: {error.strerror}", "give another --out") from error
        write_atomically(folder / CONFIG_NAME, canonical_json(config.to_json(), indent=2))
        self._folder = folder
        self._history = History(folder)

    def write_epoch(self, model: ReSpike, spec: CheckpointSpec, records: list[EpochRecord], *, is_best: bool) -> None:
        """Save the weights as the last, and as the best if they are, then the history; each file whole or absent."""
        for name in (LAST_NAME, BEST_NAME) if is_best else (LAST_NAME,):
            save_checkpoint(self._folder / name, model, spec)
        self._history.write(records)

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._history.close()
