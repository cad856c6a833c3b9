"""Leftovers: temporary files of shards whose workers were killed, cleared away before and after a run."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

# what `files.atomic_writer` makes beside a shard or its mark
_TEMPORARY = re.compile(r"\.(.+\.tar)(?:\.json)?\.[0-9a-f]{8}\.tmp")


@contextmanager
def cleared(folders: Collection[Path], names: Collection[str]) -> Iterator[None]:
    """Leave no temporary file of the shards `names` in the folders, nor let the block meet one that was left.

    A worker that is killed leaves its own; a run that is stopped time and again would fill the disk with them.
    """
    _clear(folders, names)
    try:
        yield
    finally:
        _clear(folders, names)


def _clear(folders: Collection[Path], names: Collection[str]) -> None:
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and match[1] in names:
                path.unlink(missing_ok=True)
