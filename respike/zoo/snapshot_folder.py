"""Snapshot folder: the last two snapshots of a training on disk, each whole, each known by the hash in its name."""

import json
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from respike.errors import CheckpointError
from respike.files import sha256_of_bytes, sha256_of_file, write_atomically
from respike.progress import Progress
from respike.zoo.snapshot import Snapshot

_NAME = re.compile(r"(\d{8})-([0-9a-f]{32})\.safetensors")
_NUM_DIGITS = 32
_FACTS = "facts"


class SnapshotFolder:
    """`NUMBER-HASH.safetensors`, the JSON in the file's own metadata: one file, so that nothing can come apart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, snapshot: Snapshot) -> None:
        """Save a snapshot; the one before it stays, older ones go, and so do damaged ones."""
        content = save(snapshot.tensors, metadata={_FACTS: json.dumps(snapshot.facts)})
        before = self.list()
        number = 1 + max((_number_of(path) for path in before), default=0)
        path = self._folder / f"{number:08d}-{sha256_of_bytes(content)[:_NUM_DIGITS]}.safetensors"
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        for old in before[1:]:
            old.unlink(missing_ok=True)

    def list(self) -> list[Path]:
        """The snapshots' files, the newest first."""
        if not self._folder.is_dir():
            return []
        return sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def find_newest(self, progress: Progress) -> Path | None:
        """Return the newest whole snapshot, None where none was saved; warn of each that is damaged, and remove it.

        Raises CheckpointError where there are only damaged ones.
        """
        paths = self.list()
        for place, path in enumerate(paths):
            if _is_whole(path):
                for damaged in paths[:place]:
                    progress.warn(f"{damaged} is damaged: going on from the snapshot before it, {path.name}")
                    damaged.unlink()
                return path
        if paths:
            raise CheckpointError(
                f"every saved state of the training is damaged: {', '.join(map(str, paths))}",
                "remove the run's folder and train anew, or start from its last.safetensors with --init",
            )
        return None

    def clear(self) -> None:
        """Remove the folder: a training that is done has no use for it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot that `find_newest` found. Raises CheckpointError where it is none."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return Snapshot({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no saved state of a training: {error}", "train anew") from error


def _number_of(path: Path) -> int:
    return int(path.name[:8])


def _is_whole(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    return match is not None and sha256_of_file(path).startswith(match[2])
