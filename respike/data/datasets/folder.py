"""folder: your own videos, in class folders or named in a list; demo: the videos of `respike demo`."""

import dataclasses
import json
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from respike.common.errors import LayoutError
from respike.common.text import agree, counted, counted_of, name_some
from respike.data.datasets.common import (
    DATASETS,
    Dataset,
    ListingRequest,
    Tree,
    check_alike,
    find_videos,
    locate,
    make_listing,
    read_rows,
    read_text,
    readable,
    require_folder,
    split_lines,
)
from respike.types import SUBSETS, VideoListing, VideoRef

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


_FORM = "give --root a folder of <class>/<video>, or of {train,val,test}/<class>/<video>, or name videos with --list"
_TEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What lies under the root or stands in the list: rows, where each is, the classes in label order, oddities."""

    rows: Sequence[ListRow]
    paths: Sequence[Path | None]
    classes: Sequence[str]
    warnings: tuple[str, ...] = ()


def list_folder(request: ListingRequest) -> VideoListing:
    """List `<root>/<class>/**`, `<root>/{train,val,test}/<class>/**`, or what a CSV or JSONL list names.

    Labels index the sorted class names (those of a list by number where all are numbers). Where no subset is given, a
    seeded fifth of each class's videos is the test. Raises LayoutError where there is no video, a list is malformed,
    a video is listed twice, names differ in case only, or subset folders stand beside others.
    """
    root = require_folder(request.root, "videos", _FORM)
    split = request.official_split("folder", ())
    found = _read_rows(root, request.list_path) if request.list_path else _scan_rows(root)
    subsets = _subsets(found.rows, request.seed)
    labels = {name: number for number, name in enumerate(found.classes)}
    videos = [
        VideoRef(video_id=row.path, path=path, label=labels[row.label], class_name=row.label, subset=subset)
        for row, path, subset in zip(found.rows, found.paths, subsets, strict=True)
    ]
    return make_listing(
        "folder",
        root,
        found.classes,
        videos,
        hint=LIST_HINT if request.list_path else _FORM,
        split=split,
        evaluation_subset="val" if "val" in subsets and "test" not in subsets else "test",
        warnings=found.warnings,
        fence=request.fence,
    )


def _read_rows(root: Path, list_path: Path) -> _Found:
    rows = read_list(list_path, root)
    return _Found(rows=rows, paths=[locate(root, row.path) for row in rows], classes=_sorted_labels(rows))


def _sorted_labels(rows: Iterable[ListRow]) -> list[str]:
    labels = {row.label for row in rows}
    if all(label.isascii() and label.isdigit() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _scan_rows(root: Path) -> _Found:
    tree = find_videos(root)
    in_subsets = _has_subset_folders(root, tree)
    depth = 2 if in_subsets else 1  # how many folders down a class stands
    rows: list[ListRow] = []
    paths: list[Path | None] = []
    loose: list[str] = []
    classes: set[str] = set()
    for folder in tree.folders:
        parts = tuple(map(readable, folder.parts))
        subset = parts[0].lower() if in_subsets and parts else None
        if in_subsets and subset is not None and subset not in SUBSETS:
            continue
        if len(parts) >= depth:
            classes.add(parts[depth - 1])
        for name in folder.videos:
            video_id = "/".join((*parts, readable(name)))
            if len(parts) < depth:
                loose.append(video_id)
                continue
            rows.append(ListRow(path=video_id, label=parts[depth - 1], subset=subset))
            paths.append(None if name in folder.dangling else folder.path / name)
    if loose and not rows:
        raise LayoutError(f"no class folders under {root}: {_tell_loose(loose)}", _FORM)
    warnings = (*tree.warnings(), *([_tell_loose(loose)] if loose else []), *_tell_nested(root, rows, depth))
    return _Found(rows=rows, paths=paths, classes=sorted(classes), warnings=warnings)


def _tell_loose(names: Sequence[str]) -> str:
    lie = agree(len(names), "lies in no class folder and is", "lie in no class folder and are")
    return f"{counted(len(names), 'video')} {lie} left out: {name_some(names)}"


def _tell_nested(root: Path, rows: Sequence[ListRow], depth: int) -> list[str]:
    """A line on videos that lie in folders within a class's: that may be meant, or --root be too high."""
    nested = [row for row in rows if row.path.count("/") > depth]
    if not nested:
        return []
    if len(nested) == len(rows) and len({row.label for row in rows}) == 1:
        within = sorted({row.path.split("/")[depth] for row in nested})
        return [
            f"{root} has one class, {rows[0].label}, and all its videos lie in {counted(len(within), 'folder')} within "
            f"it ({name_some(within)}): if {agree(len(within), 'that is a class', 'those are the classes')}, "
            f"give --root {root / rows[0].path.split('/')[0]}"
        ]
    lie = agree(len(nested), "lies in a folder within its class's", "lie in folders within their class's")
    first = nested[0]
    return [f"{counted(len(nested), 'video')} {lie}: {first.path} counts as {first.label}"]


def _has_subset_folders(root: Path, tree: Tree) -> bool:
    """Whether the first folders are subsets. Raises LayoutError where some are and others are not."""
    tops = {folder.parts[0] for folder in tree.folders if folder.parts}
    check_alike(sorted(tops), f"folders of {root}")
    used = {folder.parts[0] for folder in tree.folders if folder.parts and folder.videos}
    subsets = {name for name in used if name.lower() in SUBSETS}
    if subsets and subsets != used:
        # a class may be called train, as the vehicle: then its videos lie right in it
        holders = {folder.parts[0] for folder in tree.folders if len(folder.parts) == 1 and folder.videos}
        if subsets - holders:
            raise LayoutError(
                f"{root} holds {name_some(sorted(subsets))} and beside them {name_some(sorted(used - subsets))}", _FORM
            )
        return False
    return bool(subsets)


def _subsets(rows: Sequence[ListRow], seed: int) -> list[str]:
    """The subset of each row; where none is given, a fifth of each class's videos is test, and one stays in train."""
    given = [row.subset for row in rows if row.subset is not None]
    if given and len(given) < len(rows):
        have = agree(len(given), "has", "have")
        raise LayoutError(
            f"{counted_of(len(given), len(rows), 'video')} {have} a subset, the others none",
            "give all of them one, or none",
        )
    if given:
        return given
    by_class: dict[str, list[int]] = defaultdict(list)
    # by path: the split must not hang on the order of a list
    for number in sorted(range(len(rows)), key=lambda number: rows[number].path):
        by_class[rows[number].label].append(number)
    chosen = ["train"] * len(rows)
    for place, (_, numbers) in enumerate(sorted(by_class.items())):
        count = min(max(1, round(_TEST_SHARE * len(numbers))), len(numbers) - 1)
        order = np.random.default_rng([seed, place]).permutation(len(numbers))
        for pick in order[:count]:
            chosen[numbers[pick]] = "test"
    return chosen


DATASETS.add("folder", Dataset(name="folder", list_videos=list_folder, default_sampling="dense"))


def list_demo(request: ListingRequest) -> VideoListing:
    """List the demo's videos. Raises LayoutError where they have not been made."""
    require_folder(request.root, "the demo's videos", "make them with `respike demo`, then use --root demo/videos")
    request.official_split("demo", ())
    return dataclasses.replace(list_folder(request), dataset="demo", evaluation_subset="test")


DATASETS.add("demo", Dataset(name="demo", list_videos=list_demo, default_sampling="dense"))
