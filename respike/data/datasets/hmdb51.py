"""HMDB51: `<class>/<name>.avi` with the official splits in `testTrainMulti_7030_splits/`."""

import re
from pathlib import Path

from respike.common.errors import DatasetError
from respike.data.datasets.common import (
    Dataset,
    ListingRequest,
    class_folder_warnings,
    index_names,
    make_listing,
    normalize_name,
    read_lines,
    require_folder,
    to_disk,
    to_text,
)
from respike.types import VideoListing, VideoRef

_PAGE = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
_GET = (
    "`respike prepare hmdb51 --download` fetches it; or download hmdb51_org.rar and test_train_splits.rar from "
    f"{_PAGE} and extract both there, and the RARs inside"
)
_SPLITS = (1, 2, 3)
_NUM_CLASSES = 51
_LIST_FOLDER = "testTrainMulti_7030_splits"
_VIDEOS = ("hmdb51", "hmdb51_org", "videos", ".")
_LIST_NAME = re.compile(r"(?P<name>[^.].*)_test_split(?P<split>[0-9]+)\.txt")
_SUBSETS = {"1": "train", "2": "test", "0": None}


def list_hmdb51(request: ListingRequest) -> VideoListing:
    """List one of the three splits: code 1 is train, code 2 is test, code 0 is not listed.

    The lists are in `testTrainMulti_7030_splits/` under the root or beside it, or in `annotations/`; the class folders
    in `hmdb51/`, `hmdb51_org/`, `videos/` or the root. There is no official order of classes: they are sorted by name.
    A group is a source film of one class, such as `climb/BATMAN_BEGINS`: the official splits never divide it.
    Raises DatasetError where the root or a list is missing or not of the official form, and where no video is there.
    """
    root = require_folder(request.root, "HMDB51", _GET)
    split = request.official_split("hmdb51", _SPLITS) or 1
    paths = _find_lists(root, split)
    classes = tuple(sorted(paths))
    videos_root = next(root / name for name in _VIDEOS if (root / name).is_dir())
    folders = index_names(videos_root)
    videos: list[VideoRef] = []
    for label, name in enumerate(classes):
        videos.extend(
            _list_class(paths[name], name, label, videos_root / folders.get(normalize_name(name), to_disk(name)))
        )
    return make_listing(
        "hmdb51",
        videos_root,
        classes,
        sorted(videos, key=lambda video: (video.subset != "train", video.video_id)),
        hint=_GET,
        split=split,
        folder_warnings=class_folder_warnings("hmdb51", videos_root, classes),
        num_official_classes=_NUM_CLASSES,
        link_boundary=request.link_boundary,
    )


HMDB51 = Dataset(name="hmdb51", list_videos=list_hmdb51, default_sampling="dense", splits=_SPLITS)


def _find_lists(root: Path, split: int) -> dict[str, Path]:
    """Return the lists of one split by class. Raises DatasetError where a class has no list: labels would shift."""
    places = (root, root / "test_train_splits", root.parent)
    folders = [*(place / _LIST_FOLDER for place in places), root / "annotations"]
    for folder in folders:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        found = {path: match for path in paths if (match := _LIST_NAME.fullmatch(to_text(path.name)))}
        if not found:
            continue
        by_class = {match["name"]: path for path, match in found.items() if int(match["split"]) == split}
        for name in sorted({match["name"] for match in found.values()} - set(by_class)):
            raise DatasetError(f"the official lists of HMDB51: no {folder / name}_test_split{split}.txt", _GET)
        return by_class
    raise DatasetError(f"the official lists of HMDB51: there is no {folders[0]} with *_test_split{split}.txt", _GET)


def _list_class(path: Path, name: str, label: int, folder: Path) -> list[VideoRef]:
    files = index_names(folder)
    videos = []
    for line in read_lines(path):
        # names may hold spaces: the code comes after the last one
        file, *code = line.rsplit(maxsplit=1)
        if not code or code[0] not in _SUBSETS:
            raise DatasetError(f"{path} holds {line!r}, not a file name and 0, 1 or 2", _GET)
        subset = _SUBSETS[code[0]]
        if subset is not None:
            found = files.get(normalize_name(file))
            videos.append(
                VideoRef(
                    video_id=f"{name}/{file}",
                    path=None if found is None else folder / found,
                    label=label,
                    class_name=name,
                    subset=subset,
                    group=_find_group(file, name),
                )
            )
    return videos


def _find_group(file: str, class_name: str) -> str | None:
    """Return the source film of `<source>_<class>_<tags>_<n>.avi`; None for a name of another form."""
    # the last occurrence: the title of a film may hold the class as well
    source, _, _ = file.rpartition(f"_{class_name}_")
    return f"{class_name}/{source}" if source else None
