"""folder: your own videos, in class folders or named in a list."""

import csv
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from respike.data.layouts.base import LAYOUTS, Layout, ListingRequest
from respike.data.layouts.lists import check_unique, read_text, require_folder, walk_videos
from respike.errors import LayoutError
from respike.sample import SUBSETS, VideoListing, VideoRef

_FORM = "give --root a folder of <class>/<video>, or of {train,val,test}/<class>/<video>, or name videos with --list"
_LIST_FORM = "each row holds path, label and, if you like, subset (train, val or test)"
_TEST_SHARE = 0.2


def list_folder(request: ListingRequest) -> VideoListing:
    """List `<root>/<class>/**`, `<root>/{train,val,test}/<class>/**`, or what a CSV or JSONL list names.

    Where no subset is given, a seeded fifth of each class's videos is the test. Raises LayoutError where there is no
    video, a list is malformed, or a video is listed twice.
    """
    root = require_folder(request.root, "videos", _FORM)
    if request.list_path is not None:
        rows = _read_list(request.list_path)
        classes = tuple(sorted({label for _, label, _ in rows}))
    else:
        rows, classes = _scan_rows(root)
    if not rows:
        raise LayoutError(f"there is no video under {request.list_path or root}", _FORM)
    subsets = _subsets(rows, request.seed)
    labels = {name: number for number, name in enumerate(classes)}
    videos = [
        VideoRef(
            video_id=path,
            # is_symlink: a link that leads nowhere is listed, and skipped as missing
            path=root / path if (root / path).exists() else None,
            label=labels[label],
            class_name=label,
            subset=subset,
        )
        for (path, label, _), subset in zip(rows, subsets, strict=True)
    ]
    present = {video.label for video in videos}
    empty = [name for number, name in enumerate(classes) if number not in present]
    return VideoListing(
        dataset="folder",
        split=None,
        evaluation_subset="test" if "test" in subsets or "val" not in subsets else "val",
        classes=classes,
        videos=check_unique(videos),
        warnings=(f"no video in the class folders {', '.join(empty)}",) if empty else (),
    )


def _scan_rows(root: Path) -> tuple[list[tuple[str, str, str | None]], tuple[str, ...]]:
    """(path, label, subset) of each video, and all class folders, empty ones as well."""
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if folders and set(folders) <= set(SUBSETS):
        parts = [(subset, folder) for subset in folders for folder in sorted((root / subset).iterdir())]
        parts = [(subset, folder) for subset, folder in parts if folder.is_dir()]
        rows: list[tuple[str, str, str | None]] = [
            (f"{subset}/{folder.name}/{file}", folder.name, subset)
            for subset, folder in parts
            for file in walk_videos(folder)
        ]
        return rows, tuple(sorted({folder.name for _, folder in parts}))
    return [(f"{name}/{file}", name, None) for name in folders for file in walk_videos(root / name)], tuple(folders)


def _read_list(path: Path) -> list[tuple[str, str, str | None]]:
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        rows = _read_jsonl(path)
    else:
        reader = csv.reader(io.StringIO(read_text(path)), skipinitialspace=True)
        table = [row for row in reader if any(cell.strip() for cell in row)]
        header = [cell.strip().lower() for cell in table[0]] if table else []
        if not {"path", "label"} <= set(header):
            header = ["path", "label", "subset"]
        else:
            table = table[1:]
        rows = [dict(zip(header, row, strict=False)) for row in table]
    return [_checked(path, number, row) for number, row in enumerate(rows, start=1)]


def _read_jsonl(path: Path) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise LayoutError(f"{path} line {number} is no JSON: {error}", _LIST_FORM) from error
            if not isinstance(value, dict):
                raise LayoutError(f"{path} line {number} is no JSON object", _LIST_FORM)
            rows.append({name: str(cell) for name, cell in value.items() if cell is not None})
    return rows


def _checked(path: Path, number: int, row: dict[str, str]) -> tuple[str, str, str | None]:
    video, label = (row.get(name, "").strip() for name in ("path", "label"))
    if not video or not label:
        raise LayoutError(f"{path} row {number} lacks a path or a label", _LIST_FORM)
    subset = row.get("subset", "").strip().lower() or None
    if subset is not None and subset not in SUBSETS:
        raise LayoutError(f"{path} row {number}: subset {subset!r}", _LIST_FORM)
    if Path(video).is_absolute() or ".." in Path(video).parts:
        raise LayoutError(f"{path} row {number}: {video!r} leads out of --root", "give paths relative to --root")
    return Path(video).as_posix(), label, subset


def _subsets(rows: list[tuple[str, str, str | None]], seed: int) -> list[str]:
    """The subset of each row; where none is given, a fifth of each class's videos is test, and one stays in train."""
    subsets: list[str | None] = [subset for _, _, subset in rows]
    given = sum(subset is not None for subset in subsets)
    if 0 < given < len(rows):
        raise LayoutError(
            f"{given} of {len(rows)} videos have a subset, the others none", "give all of them one, or none"
        )
    if given:
        return [subset or "" for subset in subsets]
    by_class: dict[str, list[int]] = defaultdict(list)
    for number, (_, label, _) in enumerate(rows):
        by_class[label].append(number)
    chosen = ["train"] * len(rows)
    for place, (_, numbers) in enumerate(sorted(by_class.items())):
        count = min(max(1, round(_TEST_SHARE * len(numbers))), len(numbers) - 1)
        order = np.random.default_rng([seed, place]).permutation(len(numbers))
        for pick in order[:count]:
            chosen[numbers[pick]] = "test"
    return chosen


LAYOUTS.add("folder", Layout(name="folder", list_videos=list_folder, default_sampling="dense"))
