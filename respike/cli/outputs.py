"""Outputs: paths that a command is to write, looked at before its work begins and not after it."""

import tempfile
from pathlib import Path
from typing import Any

import click


class OutputFile(click.Path):
    """A file to write. A path that is a folder, or lies where nothing can be written, is refused at once."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Raises BadParameter that says why it cannot be written."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if path.is_dir():
            raise click.BadParameter(f"cannot write {path}: it is a folder; name a file in it", ctx, param)
        if reason := _refusal(path.parent):
            raise click.BadParameter(f"cannot write {path}: {path.parent}: {reason}", ctx, param)
        return path


class OutputFolder(click.Path):
    """A folder to write to, made if need be. One that cannot be made or written to is refused at once."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Raises BadParameter that says why nothing can be written there."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        # nothing is made yet: what follows may still refuse the command
        nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if reason := _refusal(nearest):
            raise click.BadParameter(f"cannot write to {path}: {nearest}: {reason}", ctx, param)
        return path


def _refusal(folder: Path) -> str:
    """Why no file can be made in `folder`; empty where one can."""
    if not folder.exists():
        return "there is no such folder; make it first"
    if not folder.is_dir():
        return "it is no folder"
    try:
        # tried for real: permissions say nothing of file systems that are read-only or full
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{error.strerror or error}; choose another place"
