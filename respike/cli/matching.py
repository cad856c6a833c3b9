"""Matching: which shards go with which checkpoint, and what becomes of a pair that does not fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from respike.cli.defaults import SHARDS_ROOT, find_data
from respike.errors import MismatchError, RespikeError, ShardError
from respike.wording import counted

if TYPE_CHECKING:
    from respike.data import ShardDataset
    from respike.progress import Progress
    from respike.zoo.checkpoint import CheckpointSpec


def match_data(given: Sequence[str], checkpoints: Sequence[tuple[str, "CheckpointSpec"]]) -> list[str]:
    """Choose shards for each checkpoint: those `given` (one for all, or one each), else those under `shards/` that fit.

    Raises RespikeError that names the choices where none, or more than one, fits.
    """
    if given and len(given) not in (1, len(checkpoints)):
        raise RespikeError(
            f"{counted(len(given), 'data set')} for {counted(len(checkpoints), 'checkpoint')}",
            "give --data once, or once a checkpoint",
        )
    if given:
        return list(given) * (len(checkpoints) if len(given) == 1 else 1)
    found = sorted(path.parent for path in SHARDS_ROOT.glob("*/dataset.json"))
    if len(found) < 2 and len(checkpoints) == 1:
        # what does not fit is refused with its reasons later
        return [find_data(None)]
    if not found:
        find_data(None)
    return [_match(found, name, spec) for name, spec in checkpoints]


def _match(found: Sequence[Path], name: str, spec: "CheckpointSpec") -> str:
    from respike.data.index import read_index
    from respike.zoo.fitting import find_mismatches

    same, fitting, reasons = [], [], []
    for path in found:
        try:
            data = read_index(path).spec
        except ShardError as error:
            reasons.append(f"{path.name}: {error.problem}")
            continue
        mismatches = find_mismatches(spec, data, ())
        if data.fingerprint == spec.data.fingerprint:
            same.append(path)
        if mismatches:
            reasons.append(f"{path.name}: {mismatches[0]}")
        else:
            fitting.append(path)
    matches = same or fitting
    if len(matches) == 1:
        return str(matches[0])
    if matches:
        names = ", ".join(each.name for each in matches)
        raise RespikeError(
            f"{SHARDS_ROOT}/ holds {len(matches)} data sets that fit {name}: {names}",
            f"choose one, as with --data {matches[0]}",
        )
    raise MismatchError(f"no data set under {SHARDS_ROOT}/ fits {name}: {'; '.join(reasons)}", "name one with --data")


def hold_against(
    spec: "CheckpointSpec", stored: "ShardDataset", progress: "Progress", *, force: bool
) -> tuple[str, ...]:
    """Why a checkpoint and its data do not fit: raised as a MismatchError, with `force` warned of and returned."""
    from respike.zoo.fitting import check_compatible, find_mismatches

    videos = [row.video for row in stored.clips]
    if not force:
        check_compatible(spec, stored.spec, videos)
    overruled = find_mismatches(spec, stored.spec, videos)
    for reason in overruled:
        progress.warn(reason)
    return overruled
