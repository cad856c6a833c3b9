"""HMDB51: `<class>/<name>.avi` with the official splits in `testTrainMulti_7030_splits/`."""

import re
from pathlib import Path

from respike.common.errors import LayoutError
from respike.data.datasets.common import (
    DATASETS,
    Dataset,
    ListingRequest,
    fold,
    make_listing,
    read_lines,
    require_folder,
    scan,
    tell_misnamed,
)
from respike.types import VideoListing, VideoRef

_PAGE = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
_GET = (
    "add --download to have it fetched; or download hmdb51_org.rar and test_train_splits.rar from "
    f"{_PAGE} and extract both there, and the RARs within"
)
_SPLITS = (1, 2, 3)
_NUM_CLASSES = 51
_LIST_FOLDER = "testTrainMulti_7030_splits"
_VIDEOS = ("hmdb51", "hmdb51_org", "videos", ".")
_LIST_NAME = re.compile(r"(?P<name>[^.].*)_test_split(?P<split>[0-9]+)\.txt")
_SUBSETS = {"1": "train", "2": "test", "0": None}


def list_hmdb51(request: ListingRequest) -> VideoListing:
    """List one of the three splits: code 1 trains, 2 tests, 0 is left out.

    The lists lie in `testTrainMulti_7030_splits/` under the root or beside it, or in `annotations/`; the class folders
    in `hmdb51/`, `hmdb51_org/`, `videos/` or the root. There is no official order of classes: they are sorted by name.
    A group is a source film of one class, as `climb/BATMAN_BEGINS`: what the official splits keep on one side.
    Raises LayoutError where the root or a list is missing or not of the official form, and where no video is there.
    """
    root = require_folder(request.root, "HMDB51", _GET)
    split = request.official_split("hmdb51", _SPLITS) or 1
    paths = _find_lists(root, split)
    classes = tuple(sorted(paths))
    videos_root = next(root / name for name in _VIDEOS if (root / name).is_dir())
    folders = scan(videos_root)
    videos: list[VideoRef] = []
    for label, name in enumerate(classes):
        videos.extend(_list_class(paths[name], name, label, videos_root / folders.get(fold(name), name)))
    return make_listing(
        "hmdb51",
        videos_root,
        classes,
        sorted(videos, key=lambda video: (video.subset != "train", video.video_id)),
        hint=_GET,
        split=split,
        misnamed=tell_misnamed("hmdb51", videos_root, classes),
        num_official_classes=_NUM_CLASSES,
        fence=request.fence,
    )


def _find_lists(root: Path, split: int) -> dict[str, Path]:
    """The lists of one split by class. A class with a list of another split only is an error: labels would shift."""
    places = (root, root / "test_train_splits", root.parent)
    looked = [*(place / _LIST_FOLDER for place in places), root / "annotations"]
    for folder in looked:
        found = {path: match for path in _files(folder) if (match := _LIST_NAME.fullmatch(path.name))}
        if not found:
            continue
        paths = {match["name"]: path for path, match in found.items() if int(match["split"]) == split}
        for name in sorted({match["name"] for match in found.values()} - set(paths)):
            raise LayoutError(f"the official lists of HMDB51: no {folder / name}_test_split{split}.txt", _GET)
        return paths
    raise LayoutError(f"the official lists of HMDB51: there is no {looked[0]} with *_test_split{split}.txt", _GET)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _list_class(path: Path, name: str, label: int, folder: Path) -> list[VideoRef]:
    files = scan(folder)
    videos = []
    for line in read_lines(path):
        # names may hold spaces, so the code is what follows the last one
        file, *code = line.rsplit(maxsplit=1)
        if not code or code[0] not in _SUBSETS:
            raise LayoutError(f"{path} holds {line!r}, not a file name and 0, 1 or 2", _GET)
        subset = _SUBSETS[code[0]]
        if subset is not None:
            found = files.get(fold(file))
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
    """The source of `<source>_<class>_<tags>_<n>.avi`, within its class; None for a name of another build."""
    # the last one: titles of films may hold the class as well
    source, _, _ = file.rpartition(f"_{class_name}_")
    return f"{class_name}/{source}" if source else None


DATASETS.add("hmdb51", Dataset(name="hmdb51", list_videos=list_hmdb51, default_sampling="dense", splits=_SPLITS))
