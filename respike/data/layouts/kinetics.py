"""Kinetics-400, -600, -700: CSV lists, and files flat in a subset's folder, in class folders, or named in a list."""

import csv
import io
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from respike.data.layouts.base import LAYOUTS, Layout, ListingRequest
from respike.data.layouts.lists import check_unique, is_video, read_lines, read_text, require_folder
from respike.errors import LayoutError
from respike.sample import VideoListing, VideoRef

_GET = "https://github.com/cvdfoundation/kinetics-dataset has the lists and the videos; put {csv} and the folders there"
_SUBSETS = ("train", "val", "test")
_COLUMNS = {"label", "youtube_id", "time_start", "time_end"}


def list_kinetics(name: str, request: ListingRequest) -> VideoListing:
    """List the subsets whose lists are there. Labels index the sorted class names; scores are made on `val`.

    `<root>/{train,val,test}.csv`, also under `annotations/` and with the data set's name before it; or, mmaction's way,
    `<root>/kinetics400_{train,val}_list_videos.txt` of path and label. A file under `replacement/` wins over all others
    of its name. A test list without labels is left out. Raises LayoutError where no list is there.
    """
    root = require_folder(request.root, name, _GET.format(csv="train.csv and val.csv"))
    lists = {subset: path for subset in _SUBSETS if (path := _find_list(root, name, subset))}
    if not lists:
        raise LayoutError(
            f"{name}: neither CSV lists nor *_list_videos.txt under {root}", _GET.format(csv="train.csv and val.csv")
        )
    if any(path.suffix == ".txt" for path in lists.values()):
        return _list_by_paths(name, root, lists)
    rows = {subset: list(_read_csv(path)) for subset, path in lists.items()}
    rows = {subset: found for subset, found in rows.items() if found}
    classes = tuple(sorted({label for found in rows.values() for label, _ in found}))
    labels = {label: number for number, label in enumerate(classes)}
    files = _Files(root)
    videos = [
        VideoRef(
            video_id=f"{subset}/{file}",
            path=files.find(subset, file),
            label=labels[label],
            class_name=label,
            subset=subset,
        )
        for subset, found in rows.items()
        for label, file in found
    ]
    return _listing(name, classes, videos)


def _listing(name: str, classes: tuple[str, ...], videos: list[VideoRef]) -> VideoListing:
    known: dict[str, VideoRef] = {}
    for video in videos:
        # the same clip under two subsets has two ids, and still must not be trained and tested on
        file = video.video_id.rsplit("/", 1)[-1]
        other = known.setdefault(file, video)
        if other.subset != video.subset:
            raise LayoutError(f"{file} is listed in {other.subset} and in {video.subset}", "mend the lists")
    return VideoListing(dataset=name, split=None, evaluation_subset="val", classes=classes, videos=check_unique(videos))


def _find_list(root: Path, name: str, subset: str) -> Path | None:
    names = (f"{subset}.csv", f"{name}_{subset}.csv", f"{subset}_list.txt", f"{name}_{subset}_list_videos.txt")
    places = (root / folder / file for file in names for folder in (".", "annotations"))
    return next((path for path in places if path.is_file()), None)


def _read_csv(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (label, file name) of each row; nothing of a list without labels."""
    rows = csv.DictReader(io.StringIO(read_text(path)))
    columns = set(rows.fieldnames or ())
    if "label" not in columns and "test" in path.name:
        return
    if missing := _COLUMNS - columns:
        raise LayoutError(f"{path} has no column {', '.join(sorted(missing))}", "use the lists as published")
    for row in rows:
        try:
            start, end = (int(float(row[column])) for column in ("time_start", "time_end"))
        except (TypeError, ValueError):
            raise LayoutError(f"{path} line {rows.line_num}: no times in it", "use the lists as published") from None
        yield row["label"].strip().strip('"'), f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"


class _Files:
    """Every video under the root, found in one pass."""

    def __init__(self, root: Path) -> None:
        self._files: dict[str, Path] = {}
        self._replacements: dict[str, Path] = {}
        for folder, folders, names in os.walk(root):
            folders.sort()
            parts = Path(folder).relative_to(root).parts
            subset = next((part for part in parts if part in _SUBSETS), None)
            replaces = any(part.startswith("replacement") for part in parts)
            for name in filter(is_video, names):
                if replaces:
                    self._replacements[name] = Path(folder, name)
                else:
                    self._files.setdefault(f"{subset}/{name}" if subset else name, Path(folder, name))

    def find(self, subset: str, name: str) -> Path | None:
        """The file of a listed clip: its replacement, else the subset's, else one that stands in no subset's folder."""
        return self._replacements.get(name) or self._files.get(f"{subset}/{name}") or self._files.get(name)


def _list_by_paths(name: str, root: Path, lists: dict[str, Path]) -> VideoListing:
    """List files named as `path label`, with the label a number; class names are the folders' where they have one."""
    videos = []
    for subset, path in lists.items():
        for line in read_lines(path):
            file, _, label = line.rpartition(" ")
            if not re.fullmatch(r"\d+", label):
                raise LayoutError(f"{path} holds {line!r}, not a path and a number", "one video a line: path label")
            places = (root / file, root / subset / file, root / f"{subset}_256" / file)
            videos.append((subset, file, int(label), next((place for place in places if place.exists()), None)))
    folders = {label: Path(file).parent.name for _, file, label, _ in videos}
    num_classes = max(label for _, _, label, _ in videos) + 1
    classes = tuple(folders.get(label, "") or f"class {label:03d}" for label in range(num_classes))
    if len(set(classes)) < num_classes:  # the folders are subsets, not classes
        classes = tuple(f"class {label:03d}" for label in range(num_classes))
    refs = [
        VideoRef(video_id=f"{subset}/{file}", path=path, label=label, class_name=classes[label], subset=subset)
        for subset, file, label, path in videos
    ]
    return _listing(name, classes, refs)


for _name in ("kinetics400", "kinetics600", "kinetics700"):
    LAYOUTS.add(_name, Layout(name=_name, list_videos=partial(list_kinetics, _name), default_sampling="uniform"))
