"""folder: your own videos, in class folders or named in a list; demo: the videos of `respike demo`."""

import dataclasses
import json
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from respike.common.errors import DatasetError
from respike.common.text import name_some
from respike.data.datasets.common import (
    Dataset,
    ListingRequest,
    VideoTree,
    check_distinct,
    describe_left_out,
    find_path,
    find_videos,
    make_listing,
    path_exists,
    read_rows,
    read_text,
    require_folder,
    split_lines,
    to_text,
)
from respike.types import SUBSETS, VideoListing, VideoRef

_ROOT_HINT = (
    "the root must be a folder of <class>/<video> or of {train,val,test}/<class>/<video>; or name the videos in a list"
)
_LIST_HINT = "each row holds path (relative to the root), label and, optionally, subset (train, val or test)"
_COLUMNS = ("path", "label", "subset")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_TEST_SHARE = 0.2
# a header that is not one may be any line of any file
_MAX_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One listed video: `video_id` is its path relative to the root with `/`; `subset` is None where not given."""

    video_id: str
    label: str
    subset: str | None
    path: Path | None = None


def list_folder(request: ListingRequest) -> VideoListing:
    """List `<root>/<class>/**`, `<root>/{train,val,test}/<class>/**`, or what a CSV or JSONL list names.

    Labels index the sorted class names; where all class names in a list are numbers, they are sorted as numbers.
    Where no subset is given, a seeded fifth of each class's videos is the test subset. Raises DatasetError where there
    is no video, a list is malformed, a video is listed twice, names differ in case only, or the root holds subset
    folders and others.
    """
    root = require_folder(request.root, "videos", _ROOT_HINT)
    split = request.official_split("folder", ())
    warnings: tuple[str, ...] = ()
    if request.list_path:
        rows = [
            dataclasses.replace(row, path=find_path(root, row.video_id)) for row in _read_list(request.list_path, root)
        ]
        classes = _sort_labels({row.label for row in rows})
    else:
        rows, classes, warnings = _find_rows(root)
    subsets = _choose_subsets(rows, request.seed)
    labels = {name: number for number, name in enumerate(classes)}
    videos = [
        VideoRef(video_id=row.video_id, path=row.path, label=labels[row.label], class_name=row.label, subset=subset)
        for row, subset in zip(rows, subsets, strict=True)
    ]
    return make_listing(
        "folder",
        root,
        classes,
        videos,
        hint=_LIST_HINT if request.list_path else _ROOT_HINT,
        split=split,
        evaluation_subset="val" if "val" in subsets and "test" not in subsets else "test",
        warnings=warnings,
        link_boundary=request.link_boundary,
    )


def list_demo(request: ListingRequest) -> VideoListing:
    """List the videos of the demo. Raises DatasetError where they have not been made."""
    require_folder(request.root, "the demo's videos", "make them with `respike demo`, then use the root demo/videos")
    request.official_split("demo", ())
    return dataclasses.replace(list_folder(request), dataset="demo", evaluation_subset="test")


FOLDER = Dataset(name="folder", list_videos=list_folder, default_sampling="dense")
DEMO = Dataset(name="demo", list_videos=list_demo, default_sampling="dense")


def _read_list(path: Path, root: Path) -> list[_Row]:
    """Read a list: one JSON object a line, or CSV with a header or with the columns path,label,subset.

    Raises DatasetError that names the line: missing or additional cells, an unknown subset, a path out of `root`.
    """
    rows = _read_jsonl(path) if path.suffix.lower() in _JSON_SUFFIXES else _read_csv(path, root)
    return [_check_row(f"{path} line {number}", cells, root) for number, cells in rows]


def _read_csv(path: Path, root: Path) -> list[tuple[int, dict[str, str]]]:
    table = list(read_rows(path))
    header = [cell.strip().lower() for cell in table[0][1]] if table else []
    if {"path", "label"} <= set(header):
        table = table[1:]
    elif header and "." not in header[0] and not path_exists(root / table[0][1][0]):
        shown = ",".join(header)
        if len(shown) > _MAX_SHOWN_CHARACTERS:
            shown = f"{shown[:_MAX_SHOWN_CHARACTERS]}…"
        raise DatasetError(f"{path}: the header {shown!r} has no columns path and label", _LIST_HINT)
    else:
        header = list(_COLUMNS)
    for number, row in table:
        if len(row) > len(header):
            raise DatasetError(
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
                raise DatasetError(f"{path} line {number} is not JSON: {error}", _LIST_HINT) from error
            if not isinstance(value, dict):
                raise DatasetError(f"{path} line {number} is not a JSON object", _LIST_HINT)
            cells = {name: value[name] for name in _COLUMNS if value.get(name) is not None}
            if bad := [name for name, cell in cells.items() if isinstance(cell, (bool, float, list, dict))]:
                raise DatasetError(f"{path} line {number}: {bad[0]} is {cells[bad[0]]!r}, not a text", _LIST_HINT)
            rows.append((number, {name: str(cell) for name, cell in cells.items()}))
    return rows


def _check_row(where: str, cells: dict[str, str], root: Path) -> _Row:
    # not stripped: a file name may begin or end with a space
    video, label = cells.get("path", ""), cells.get("label", "").strip()
    if not video.strip() or not label:
        raise DatasetError(f"{where} lacks a path or a label", _LIST_HINT)
    if _has_surrogate(label):
        raise DatasetError(f"{where}: the label {label!r} is not valid text", _LIST_HINT)
    subset = cells.get("subset", "").strip().lower() or None
    if subset is not None and subset not in SUBSETS:
        raise DatasetError(f"{where}: subset is {subset!r}", _LIST_HINT)
    # made absolute without following links: a link in the root may lead anywhere
    inside = posixpath.relpath(posixpath.join(root.absolute().as_posix(), video), root.absolute().as_posix())
    if inside == "." or inside.split("/")[0] == "..":
        raise DatasetError(f"{where}: {video!r} leads out of {root}", "give paths relative to the root")
    if "\0" in inside or (not inside.isprintable() and _has_surrogate(inside)):
        raise DatasetError(f"{where}: {video!r} cannot be a file name", _LIST_HINT)
    return _Row(video_id=inside, label=label, subset=subset)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _sort_labels(labels: set[str]) -> list[str]:
    if all(label.isascii() and label.isdigit() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _find_rows(root: Path) -> tuple[list[_Row], list[str], tuple[str, ...]]:
    """Return a row for each video in a class folder, the sorted classes, and warnings."""
    tree = find_videos(root)
    in_subsets = _has_subset_folders(root, tree)
    class_depth = 2 if in_subsets else 1
    rows: list[_Row] = []
    outside: list[str] = []
    left_out: list[str] = []
    classes: set[str] = set()
    for folder in tree.folders:
        parts = tuple(map(to_text, folder.parts))
        subset = parts[0].lower() if in_subsets and parts else None
        if in_subsets and subset is not None and subset not in SUBSETS:
            continue
        if len(parts) >= class_depth:
            classes.add(parts[class_depth - 1])
            left_out += folder.others
        for name in folder.videos:
            video_id = "/".join((*parts, to_text(name)))
            if len(parts) < class_depth:
                outside.append(video_id)
                continue
            path = None if name in folder.broken_links else folder.path / name
            rows.append(_Row(video_id=video_id, label=parts[class_depth - 1], subset=subset, path=path))
    outside_line = f"videos outside of class folders, skipped: {len(outside):,} ({name_some(outside)})"
    left_out_lines = describe_left_out(left_out)
    if left_out and not rows:
        raise DatasetError(f"no videos under {root}; {left_out_lines[0]}", _ROOT_HINT)
    if outside and not rows:
        raise DatasetError(f"no class folders under {root}; {outside_line}", _ROOT_HINT)
    warnings = (
        *tree.warnings(),
        *([outside_line] if outside else []),
        *left_out_lines,
        *_nesting_warnings(root, rows, class_depth),
    )
    return rows, sorted(classes), warnings


def _nesting_warnings(root: Path, rows: Sequence[_Row], class_depth: int) -> list[str]:
    """Return a line on videos in folders inside a class folder: that may be intended, or the root may be too high."""
    nested = [row for row in rows if row.video_id.count("/") > class_depth]
    if not nested:
        return []
    first = nested[0]
    if len(nested) == len(rows) and len({row.label for row in rows}) == 1:
        inner = sorted({row.video_id.split("/")[class_depth] for row in nested})
        return [
            f"{root} has one class, {first.label}, and all its videos are in folders inside it ({name_some(inner)}); "
            f"if these are the classes, use the root {root / first.video_id.split('/')[0]}"
        ]
    return [
        f"videos in folders inside a class folder: {len(nested):,} (such as {first.video_id}, of class {first.label})"
    ]


def _has_subset_folders(root: Path, tree: VideoTree) -> bool:
    """Return whether the top folders are subsets. Raises DatasetError where some are and others are not."""
    top_folders = {to_text(folder.parts[0]) for folder in tree.folders if folder.parts}
    check_distinct(sorted(top_folders), f"folders of {root}")
    used = {folder.parts[0] for folder in tree.folders if folder.parts and folder.videos}
    subsets = {name for name in used if name.lower() in SUBSETS}
    if subsets and subsets != used:
        # a class may be called train, the vehicle: then the videos are directly in its folder
        with_videos = {folder.parts[0] for folder in tree.folders if len(folder.parts) == 1 and folder.videos}
        if subsets - with_videos:
            raise DatasetError(
                f"{root} holds subset folders ({name_some(sorted(subsets))}) "
                f"and others ({name_some(sorted(used - subsets))})",
                _ROOT_HINT,
            )
        return False
    return bool(subsets)


def _choose_subsets(rows: Sequence[_Row], seed: int) -> list[str]:
    """Return the subset of each row; where none is given, draw a fifth of each class as test, leaving one in train."""
    given = [row.subset for row in rows if row.subset is not None]
    if given and len(given) < len(rows):
        raise DatasetError(
            f"a subset is given for {len(given):,} of {len(rows):,} videos", "give one for all of them, or for none"
        )
    if given:
        return given
    by_class: dict[str, list[int]] = defaultdict(list)
    # sorted by path: the split must not depend on the order of a list
    for number in sorted(range(len(rows)), key=lambda number: rows[number].video_id):
        by_class[rows[number].label].append(number)
    subsets = ["train"] * len(rows)
    for place, (_, numbers) in enumerate(sorted(by_class.items())):
        num_test = min(max(1, round(_TEST_SHARE * len(numbers))), len(numbers) - 1)
        order = np.random.default_rng([seed, place]).permutation(len(numbers))
        for drawn in order[:num_test]:
            subsets[numbers[drawn]] = "test"
    return subsets
