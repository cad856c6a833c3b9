"""Folder lists: a CSV or JSONL file of path, label and, if wanted, subset, for `folder`."""

import json
import posixpath
from dataclasses import dataclass
from pathlib import Path

from respike.data.layouts.lists import read_rows, read_text, split_lines
from respike.errors import LayoutError
from respike.sample import SUBSETS

LIST_HINT = "each row holds path (relative to --root), label and, if you like, subset (train, val or test)"
_COLUMNS = ("path", "label", "subset")


@dataclass(frozen=True, kw_only=True, slots=True)
class ListRow:
    """One listed video: `path` relative to the root with `/`, and its subset, None where the list gives none."""

    path: str
    label: str
    subset: str | None


def read_list(path: Path, root: Path) -> list[ListRow]:
    """Read a list: JSON objects, one a line, in `*.jsonl`; else CSV, with a header or in the order path,label,subset.

    Raises LayoutError that names the line: cells missing or too many, an unknown subset, a path out of `root`.
    """
    rows = _read_jsonl(path) if path.suffix.lower() in (".jsonl", ".ndjson", ".json") else _read_csv(path, root)
    return [_checked(f"{path} line {number}", cells, root) for number, cells in rows]


def _read_csv(path: Path, root: Path) -> list[tuple[int, dict[str, str]]]:
    table = list(read_rows(path))
    header = [cell.strip().lower() for cell in table[0][1]] if table else []
    if {"path", "label"} <= set(header):
        table = table[1:]
    elif header and "." not in header[0] and not (root / table[0][1][0]).exists():
        raise LayoutError(f"{path}: the header {','.join(header)!r} names no path and label", LIST_HINT)
    else:
        header = list(_COLUMNS)
    for number, row in table:
        if len(row) > len(header):
            raise LayoutError(
                f"{path} line {number} has {len(row)} cells, at most {len(header)} are expected",
                'put a path that holds a comma in "quotes"',
            )
    return [(number, dict(zip(header, row, strict=False))) for number, row in table]


def _read_jsonl(path: Path) -> list[tuple[int, dict[str, str]]]:
    rows = []
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LayoutError(f"{path} line {number} is no JSON: {error}", LIST_HINT) from error
            if not isinstance(value, dict):
                raise LayoutError(f"{path} line {number} is no JSON object", LIST_HINT)
            cells = {name: value[name] for name in _COLUMNS if value.get(name) is not None}
            if bad := [name for name, cell in cells.items() if isinstance(cell, (bool, float, list, dict))]:
                raise LayoutError(f"{path} line {number}: {bad[0]} is {cells[bad[0]]!r}, not a text", LIST_HINT)
            rows.append((number, {name: str(cell) for name, cell in cells.items()}))
    return rows


def _checked(where: str, cells: dict[str, str], root: Path) -> ListRow:
    # not stripped: a file name may begin or end with a space
    video, label = cells.get("path", ""), cells.get("label", "").strip()
    if not video.strip() or not label:
        raise LayoutError(f"{where} lacks a path or a label", LIST_HINT)
    if _has_surrogate(label):
        raise LayoutError(f"{where}: the label {label!r} is no text", LIST_HINT)
    subset = cells.get("subset", "").strip().lower() or None
    if subset is not None and subset not in SUBSETS:
        raise LayoutError(f"{where}: subset is {subset!r}", LIST_HINT)
    # made absolute without following links: one in the root may lead anywhere
    inside = posixpath.relpath(posixpath.join(root.absolute().as_posix(), video), root.absolute().as_posix())
    if inside == "." or inside.split("/")[0] == "..":
        raise LayoutError(f"{where}: {video!r} leads out of {root}", "give paths relative to --root")
    if "\0" in inside or (not inside.isprintable() and _has_surrogate(inside)):
        raise LayoutError(f"{where}: {video!r} can be no file name", LIST_HINT)
    return ListRow(path=inside, label=label, subset=subset)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
