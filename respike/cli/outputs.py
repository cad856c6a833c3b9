"""Outputs: paths that a command is to write, looked at before its work begins and not after it.

A file is written over only where it is what the same option wrote before: weights, shards and inputs never are.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

# what a training leaves, shards consist of and a published folder holds: theirs, whatever is in the file
_RUN_MARKS = ("best.safetensors", "last.safetensors", "history.jsonl", "request.json")
_RUN_NAMES = re.compile(
    r"(best|last)\.(safetensors|json)|config\.json|history\.jsonl|recipe\.toml|request\.json|curves\.png"
)
_SHARDS_MARKS = ("dataset.json", ".respike")
_SHARDS_NAMES = re.compile(r"(train|val|test)-\d{6,}\.tar|dataset\.json|(videos|skipped)\.jsonl|README\.md")
_PUBLISHED_MARKS = ("card.json",)
_PUBLISHED_NAMES = re.compile(r"model\.(safetensors|json)|(card|config|scores)\.json|README\.md")
_OWNERS = (
    ("the run", _RUN_MARKS, _RUN_NAMES),
    ("the shards", _SHARDS_MARKS, _SHARDS_NAMES),
    ("the published weights", _PUBLISHED_MARKS, _PUBLISHED_NAMES),
)
_MOST_HEADER = 1 << 20


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, and whether the file at a path, which holds something, is one."""

    name: str
    fits: Callable[[Path], bool]


def _begins(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)).lower() == content.lower()


def _holds_predictions(path: Path) -> bool:
    """Whether a safetensors file is one that `respike score --predictions` wrote; weights have no such metadata."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, _MOST_HEADER))) if length <= _MOST_HEADER else {}
    return "probabilities" in header and "respike" in header.get("__metadata__", {})


def _holds_faults(path: Path) -> bool:
    with path.open("rb") as file:
        row = json.loads(file.readline(_MOST_HEADER))
    return isinstance(row, dict) and row.keys() >= {"video", "stage", "reason"}


PNG = Kind("a PNG", lambda path: _begins(path, b"\x89PNG\r\n\x1a\n"))
HTML = Kind("an HTML page", lambda path: _begins(path, b"<!doctype html"))
# ONNX has no magic number: its first field is the version
ONNX = Kind("an ONNX file", lambda path: path.suffix == ".onnx" and _begins(path, b"\x08"))
NIR = Kind("a NIR file", lambda path: _begins(path, b"\x89HDF\r\n\x1a\n"))
PREDICTIONS = Kind("predictions", _holds_predictions)
FAULTS = Kind("a report of faults", _holds_faults)
EXPORTED = Kind("an exported network", lambda path: ONNX.fits(path) or NIR.fits(path))


class OutputFile(click.Path):
    """A file of a `kind` to write. Refused at once are folders, places where nothing can be written, names that belong
    to a run or to shards, and files of another kind, which writing would destroy.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__(path_type=Path)
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Raises BadParameter that says why it cannot, or must not, be written."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if reason := find_objection(path, self._kind):
            raise click.BadParameter(f"cannot write {path}: {reason}", ctx, param)
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


def find_objection(path: Path, kind: Kind) -> str:
    """Why no file of a kind is to be written to `path`; empty where one may be."""
    if path.is_dir():
        return "it is a folder; name a file in it"
    if reason := _refusal(path.parent):
        return f"{path.parent}: {reason}"
    for owner, marks, names in _OWNERS:
        if names.fullmatch(path.name) and any((path.parent / mark).exists() for mark in marks):
            return f"it belongs to {owner} in {path.parent}; choose another name"
    if path.is_file() and path.stat().st_size and not _is_kind(path, kind):
        return f"there is a file that is not {kind.name}; choose another name, or remove it first"
    return ""


def require_apart(context: click.Context) -> None:
    """Raise UsageError where a file to write is given to the command as something to read, or twice to write."""
    given = [(parameter, path) for parameter in context.command.params for path in _paths(context, parameter)]
    outputs = [(parameter, path) for parameter, path in given if isinstance(parameter.type, OutputFile)]
    for place, (parameter, path) in enumerate(outputs):
        others = outputs[:place] + [(other, each) for other, each in given if not isinstance(other.type, OutputFile)]
        for other, each in others:
            if path.resolve() == each.resolve() or (path.exists() and each.exists() and path.samefile(each)):
                names = (
                    parameter.opts[0],
                    other.opts[0] if isinstance(other, click.Option) else other.human_readable_name,
                )
                raise click.UsageError(
                    f"cannot write {path}: {' and '.join(dict.fromkeys(names))} name the same file", context
                )


def _paths(context: click.Context, parameter: click.Parameter) -> Iterator[Path]:
    """What a parameter was given that may be a path."""
    value = context.params.get(parameter.name or "")
    for each in value if isinstance(value, tuple | list) else [value]:
        if isinstance(each, str | Path):
            yield Path(each)


def _is_kind(path: Path, kind: Kind) -> bool:
    try:
        return kind.fits(path)
    # what cannot be read as that kind is of another
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


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
