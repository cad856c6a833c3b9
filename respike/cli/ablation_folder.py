"""Ablation folder: where shards, runs and results of a grid lie, and what may stand there together."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respike.errors import MismatchError, RespikeError
from respike.files import canonical_json, folder_lock, write_atomically
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from respike.zoo.ablation import Cell, Setting

_FACTS_NAME = "ablation.json"


class AblationFolder:
    """One ablation on disk; cells may be added to it, but all of one recipe on the same videos."""

    def __init__(self, out: Path) -> None:
        self._out = out

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder, made if need be. Raises RespikeError where another process does."""
        self._out.mkdir(parents=True, exist_ok=True)
        with folder_lock(self._out / ".respike" / "ablate.lock", "respike ablate"):
            yield

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Note what all cells have in common; raise MismatchError that names in what earlier ones had it otherwise."""
        path = self._out / _FACTS_NAME
        if not path.exists():
            write_atomically(path, canonical_json(facts, indent=2))
            return
        # an ablation from before a setting came to be had its default
        known = TrainConfig().to_json() | _read_json(path, "give another --out")
        if differing := [name for name, value in facts.items() if known.get(name) != value]:
            raise MismatchError(
                f"{self._out} holds an ablation made otherwise: it differs in {', '.join(differing)}",
                "give another --out, or the same again",
            )

    def shards(self, setting: "Setting") -> Path:
        """The shards of a setting, the same for all networks and seeds."""
        return self._out / "shards" / f"stride{setting.stride}-theta{setting.threshold}"

    def run(self, cell: "Cell") -> Path:
        """The run folder of a cell."""
        return self._out / "runs" / cell.name

    def keep(self, cell: "Cell", result: Mapping[str, Any]) -> None:
        """Keep the result of a cell: it is finished from now on."""
        path = self._result(cell)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, canonical_json(result, indent=2))

    def read_kept(self, cell: "Cell") -> Mapping[str, Any] | None:
        """Return the result of a cell that is finished, None where it is not.

        Raises MismatchError where its shards are others now, RespikeError where the file is damaged.
        """
        from respike.data.index import read_index

        path = self._result(cell)
        if not path.exists():
            return None
        kept = _read_json(path, "remove it: the cell is then scored again")
        try:
            fingerprint = kept["scores"]["fingerprint"]
        except (KeyError, TypeError) as error:
            raise RespikeError(f"{path} holds no result", "remove it: the cell is then scored again") from error
        if fingerprint != read_index(self.shards(cell.setting)).spec.fingerprint:
            raise MismatchError(
                f"the videos have changed since {cell.name} was trained",
                "give another --out, so that all cells see the same",
            )
        return kept

    def _result(self, cell: "Cell") -> Path:
        return self._out / "cells" / f"{cell.name}.json"


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RespikeError(f"cannot read {path}: {error}", hint) from error
    if not isinstance(value, dict):
        raise RespikeError(f"{path} holds a {type(value).__name__}, no JSON object", hint)
    return value
