"""Unpacking: an archive becomes a folder that is whole or absent, whatever stops it half-way."""

import os
import shutil
from pathlib import Path

from respike.data.obtain.archives import ArchiveError, unpack_tar, unpack_zip
from respike.data.obtain.rar import unpack_rar
from respike.data.obtain.sources import is_archive, stem
from respike.errors import RespikeError
from respike.files import write_error
from respike.progress import Progress, Task


def unpack(archive: Path, target: Path, progress: Progress, *, nested: bool = False) -> None:
    """Unpack `archive` to the folder `target`, which must not exist yet.

    Where all of it lies in one folder, that folder becomes the target, whatever its name. `nested`: each archive in it
    becomes a folder of the target. Stopped at any moment, it leaves no target, and the next call starts afresh.
    Raises ArchiveError on an archive that is damaged or made to harm, RespikeError where the disk is full.
    """
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        with progress.task(f"unpack {archive.name}", total=None, unit="bytes") as task:
            content = _unpack_into(archive, temporary / "all", task)
            if nested:
                _unpack_nested(content, temporary / "one", task)
        # the rename must not reach the disk before what it names
        os.sync()
        content.rename(target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_into(archive: Path, folder: Path, task: Task) -> Path:
    """Unpack one archive; the folder that holds what is in it."""
    folder.mkdir()
    name = archive.name.lower()
    if name.endswith(".rar"):
        unpack_rar(archive, folder, task)
    elif name.endswith(".zip"):
        unpack_zip(archive, folder, task)
    else:
        unpack_tar(archive, folder, task)
    entries = list(folder.iterdir())
    if not entries:
        raise ArchiveError(f"{archive} is empty", "remove it and fetch it again")
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _unpack_nested(folder: Path, temporary: Path, task: Task) -> None:
    """Put a folder in the place of each archive in `folder`, by the name of the one folder in it or its own."""
    for archive in sorted(path for path in folder.iterdir() if is_archive(path.name)):
        content = _unpack_into(archive, temporary, task)
        target = folder / (content.name if content != temporary else stem(archive.name))
        if target.exists():
            raise RespikeError(f"{archive.name} and another archive both hold {target.name}", "look at the archives")
        content.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        archive.unlink()
