"""Defaults that hang on what lies on disk: the one data set under `shards/`, the next free run folder."""

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from respike.errors import RespikeError

if TYPE_CHECKING:
    from respike.sample import DataSpec

SHARDS_ROOT = Path("shards")
RUNS_ROOT = Path("runs")


def find_data(given: str | None) -> str:
    """Return the data set that was given, else the only one under `shards/`.

    Raises RespikeError that lists them where there are several, and that names the way to make one where none is.
    """
    if given is not None:
        return given
    found = sorted(path.parent for path in SHARDS_ROOT.glob("*/dataset.json"))
    if not found:
        raise RespikeError(
            f"there is no data set under {SHARDS_ROOT}/",
            "make one first, as with `respike prepare ucf101`, or say where it is with --data",
        )
    if len(found) > 1:
        raise RespikeError(
            f"{SHARDS_ROOT}/ holds {len(found)} data sets: {', '.join(path.name for path in found)}",
            f"choose one, as with --data {found[0]}",
        )
    return str(found[0])


def choose_run_folder(given: Path | None, model: str, data: "DataSpec") -> Path:
    """Return the folder that was given, else `runs/<model>-<dataset>[-splitN]`, numbered from 2 where it is taken."""
    if given is not None:
        return given
    split = "" if data.split is None else f"-split{data.split}"
    name = f"{model}-{data.dataset}{split}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(RUNS_ROOT / name for name in names if not (RUNS_ROOT / name).exists())


def choose_num_workers(given: int | None, device_type: str) -> int:
    """Return the loader's processes that were given, else 0 on a CPU and up to 8 beside an accelerator.

    On a CPU the network takes every core and far longer than the loader, so that processes would only get in its way.
    """
    if given is not None:
        return given
    return 0 if device_type == "cpu" else max(1, min(8, (os.cpu_count() or 1) - 1))
