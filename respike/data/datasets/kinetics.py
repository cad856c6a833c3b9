"""Kinetics-400, -600, -700: CSV lists, and files flat in a subset's folder, in class folders, or named in a list."""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

from respike.common.errors import DatasetError
from respike.data.datasets.common import (
    Dataset,
    ListingRequest,
    VideoTree,
    check_distinct,
    describe_left_out,
    find_videos,
    make_listing,
    normalize_name,
    read_lines,
    read_rows,
    require_folder,
    to_disk,
    to_text,
)
from respike.types import SUBSETS, VideoListing, VideoRef

_GET = (
    "`respike prepare kinetics400 --download` fetches it; or get lists and videos from "
    "https://github.com/cvdfoundation/kinetics-dataset; put train.csv and val.csv there, or into annotations/, "
    "and the folders train/, val/ and replacement/ beside them"
)
_LIST_HINT = "use the lists as published"
_NUM_CLASSES = {"kinetics400": 400, "kinetics600": 600, "kinetics700": 700}
_LIST_WORDS = {"train": ("train",), "val": ("val", "validate"), "test": ("test",)}
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
# matches train, videos_train, val_256, k400_val, validate; not a class such as `training_dog`
_SUBSET_FOLDER = re.compile(r"(?:.*_)?(train|val|test)(?:idate|idation)?(?:_.*)?", re.IGNORECASE)
# subset, file, label
_Listed: TypeAlias = tuple[str, str, int]
_CLIP_NAME = re.compile(r".+_[0-9]{6}_[0-9]{6}")


def list_kinetics(name: str, request: ListingRequest) -> VideoListing:
    """List the subsets whose lists are there. Labels index the sorted class names; the evaluation subset is `val`.

    The lists are `{train,val,test}.csv` in the root or in `annotations/`, also with the dataset's name in front, or
    with `validate` for `val`. Where there is no CSV they are `kinetics400_{train,val}_list_videos.txt` or
    `{train,val}_list.txt`, with a path and a number in each line. Files are found by name, in any folder; a file under
    `replacement*/` replaces all others of its name. A test list without labels is skipped. Raises DatasetError where no
    list or no video is there, a row is malformed, or a clip is listed twice or found twice.
    """
    root = require_folder(request.root, name, _GET)
    request.official_split(name, ())
    subsets, listed, classes = _read_lists(root, name)
    # `air drumming` and `air_drumming` would be two classes
    check_distinct(classes, "classes", key=lambda label: normalize_name(label).replace("_", " "))
    _check_subsets(listed)
    tree = find_videos(root)
    files = _FileFinder(tree)
    videos = [
        VideoRef(
            video_id=f"{subset}/{file}",
            path=files.find(subset, file),
            label=label,
            class_name=classes[label],
            subset=subset,
        )
        for subset, file, label in listed
    ]
    return make_listing(
        name,
        root,
        classes,
        videos,
        hint=_GET,
        evaluation_subset="val",
        warnings=(
            *(f"there is no list of {subset}" for subset in ("train", "val") if subset not in subsets),
            *tree.warnings(),
            # such as downloads that were not finished
            *describe_left_out(name for folder in tree.folders for name in folder.others if _CLIP_NAME.match(name)),
        ),
        num_official_classes=_NUM_CLASSES[name],
        link_boundary=request.link_boundary,
    )


KINETICS400, KINETICS600, KINETICS700 = (
    Dataset(name=name, list_videos=partial(list_kinetics, name), default_sampling="uniform") for name in _NUM_CLASSES
)


def _read_lists(root: Path, name: str) -> tuple[set[str], list[_Listed], list[str]]:
    """Return the subsets with a list, the listed clips, and the classes in label order. CSV lists come first."""
    if lists := _find_lists(root, name, ("{}.csv", f"{name}_{{}}.csv")):
        rows = [(subset, label, file) for subset, path in lists.items() for label, file in _read_csv(path, subset)]
        classes = sorted({label for _, label, _ in rows})
        labels = {label: number for number, label in enumerate(classes)}
        return set(lists), [(subset, file, labels[label]) for subset, label, file in rows], classes
    if lists := _find_lists(root, name, ("{}_list.txt", f"{name}_{{}}_list_videos.txt")):
        listed = [(subset, *row) for subset, path in lists.items() for row in _read_numbered(path, _NUM_CLASSES[name])]
        return set(lists), listed, _class_names(listed)
    raise DatasetError(f"{name}: there is no train.csv, val.csv or *_list_videos.txt under {root}", _GET)


def _find_lists(root: Path, name: str, forms: tuple[str, ...]) -> dict[str, Path]:
    """Return the list of each subset that has one, in the root or in `annotations/`; the first form wins."""
    places = [place for place in (root, root / "annotations") if place.is_dir()]
    found = {}
    for subset, words in _LIST_WORDS.items():
        paths = (place / form.format(word) for form in forms for word in words for place in places)
        if path := next((path for path in paths if path.is_file()), None):
            found[subset] = path
    return found


def _read_csv(path: Path, subset: str) -> Iterator[tuple[str, str]]:
    """Yield (label, file name) of each row; nothing for a test list without labels."""
    rows: Iterable[tuple[int, list[str]]] = read_rows(path)
    header = [cell.strip().lower() for cell in next(iter(rows), (0, []))[1]]
    if subset == "test" and not _has_labels(rows := list(rows), header):
        return
    if missing := [column for column in _COLUMNS if column not in header]:
        raise DatasetError(f"{path} has no column {', '.join(missing)}", _LIST_HINT)
    label, video, start, end = (header.index(column) for column in _COLUMNS)
    for number, row in rows:
        if not (class_name := _cell(row, label)) or not (youtube_id := _cell(row, video)):
            raise DatasetError(f"{path} line {number} lacks a label or a youtube_id", _LIST_HINT)
        try:
            times = [int(float(_cell(row, place))) for place in (start, end)]
        except (ValueError, OverflowError):
            raise DatasetError(f"{path} line {number} has no valid times", _LIST_HINT) from None
        yield class_name, f"{youtube_id}_{times[0]:06d}_{times[1]:06d}.mp4"


def _has_labels(rows: list[tuple[int, list[str]]], header: list[str]) -> bool:
    return "label" in header and any(_cell(row, header.index("label")) for _, row in rows)


def _cell(row: list[str], place: int) -> str:
    return row[place].strip().strip('"') if place < len(row) else ""


def _read_numbered(path: Path, num_classes: int) -> Iterator[tuple[str, int]]:
    """Yield (file, label) of each line `path label`."""
    for line in read_lines(path):
        file, *label = line.rsplit(maxsplit=1)
        if not label or not re.fullmatch(r"[0-9]{1,4}", label[0]) or int(label[0]) >= num_classes:
            raise DatasetError(
                f"{path} holds {line!r}, not a path and a number under {num_classes}",
                "write one video a line: path label",
            )
        if file.startswith("/") or ".." in file.split("/"):
            raise DatasetError(f"{path} holds {file!r}, which leads out of the root", "give paths relative to it")
        yield file, int(label[0])


def _class_names(listed: list[_Listed]) -> list[str]:
    """Return the classes of numbered lists: the folder names where each class has one folder, else the numbers."""
    folders: dict[int, set[str]] = {}
    for _, file, label in listed:
        folders.setdefault(label, set()).add(file.rpartition("/")[0].rpartition("/")[2])
    numbers = range(max(folders, default=-1) + 1)
    names = [min(folders.get(label, {""})) or f"class {label:03d}" for label in numbers]
    shared = len(set(names)) < len(names) or any(len(found) > 1 for found in folders.values())
    return [f"class {label:03d}" for label in numbers] if shared else names


def _check_subsets(listed: list[_Listed]) -> None:
    """Raise DatasetError where a clip is listed in two subsets: its ids differ, but training on it would be wrong."""
    known: dict[str, str] = {}
    for subset, file, _ in listed:
        other = known.setdefault(normalize_name(file), subset)
        if other != subset:
            raise DatasetError(f"{file} is listed in {other} and in {subset}", "remove it from one of the lists")


class _FileFinder:
    """Finds videos under the root by name without suffix, and by the subset in whose folder they are."""

    def __init__(self, tree: VideoTree) -> None:
        self._root = tree.folders[0].path
        self._replacements: dict[str, tuple[str, ...]] = {}
        self._by_subset: dict[str, dict[str, tuple[str, ...]]] = {subset: {} for subset in (*SUBSETS, "")}
        for folder in tree.folders:
            parts = [part.lower() for part in folder.parts]
            subset = next((match[1] for part in parts if (match := _SUBSET_FOLDER.fullmatch(part))), "")
            replaces = any(part.startswith("replacement") for part in parts)
            found = self._replacements if replaces else self._by_subset[subset]
            place = "".join(f"{part}/" for part in folder.parts)
            for name in folder.videos:
                if name not in folder.broken_links:
                    stem = name.rpartition(".")[0]
                    found[stem] = (*found.get(stem, ()), f"{place}{name}")

    def find(self, subset: str, listed: str) -> Path | None:
        """Return the file of a listed clip: its replacement, else one of its subset, else one in any folder."""
        listed = to_disk(listed)
        name = listed.rpartition("/")[2]
        stem = name.rpartition(".")[0] or name
        is_clip = _CLIP_NAME.fullmatch(stem) is not None
        for files in (self._replacements, self._by_subset[subset], *self._by_subset.values()):
            paths = files.get(stem, ())
            # a name such as 0001.mp4 means nothing without its folder
            if not is_clip and files is not self._replacements:
                paths = tuple(path for path in paths if f"/{path}".endswith(f"/{listed}"))
            if paths:
                return self._root / (paths[0] if len(paths) == 1 else self._choose(paths, listed))
        return None

    def _choose(self, paths: tuple[str, ...], listed: str) -> str:
        """Return the one of several files with the same name whose folders are those in the list."""
        matching = [path for path in paths if f"/{path}".endswith(f"/{listed}")]
        if "/" not in listed or len(matching) != 1:
            both = " and ".join(repr(to_text(path)) for path in paths[:2])
            raise DatasetError(f"{self._root} holds {both}, which are the same clip", "remove one of them")
        return matching[0]
