"""UCF101: `UCF-101/<Class>/v_<Class>_gXX_cYY.avi` with the official lists in `ucfTrainTestlist/`."""

import re
from pathlib import Path

from respike.common.errors import DatasetError
from respike.data.datasets.common import (
    Dataset,
    ListingRequest,
    check_distinct,
    class_folder_warnings,
    index_names,
    make_listing,
    normalize_name,
    read_lines,
    require_folder,
)
from respike.types import VideoListing, VideoRef

_PAGE = "https://www.crcv.ucf.edu/research/data-sets/ucf101/"
_GET = (
    "`respike prepare ucf101 --download` fetches it; or download UCF101.rar and "
    f"UCF101TrainTestSplits-RecognitionTask.zip from {_PAGE} and extract both there"
)
_SPLITS = (1, 2, 3)
_NUM_CLASSES = 101
_VIDEOS = ("UCF-101", "UCF101", "videos", ".")
_LINE = re.compile(r"(?P<folder>[^/]+)/(?P<file>.+?)(?:\s+(?P<number>\d+))?")
_GROUP = re.compile(r"_(g\d+)_c\d+", re.IGNORECASE)


def list_ucf101(request: ListingRequest) -> VideoListing:
    """List one of the three splits.

    The lists are in `ucfTrainTestlist/` under the root or beside it, or in `annotations/`; the class folders in
    `UCF-101/`, `UCF101/`, `videos/` or the root. Labels come from classInd.txt, the class of a video from its folder
    in the list; case is ignored. A group is a source video of one class, such as `Archery/g07`.
    Raises DatasetError where the root, a list or a class of the list is missing, and where no video is there.
    """
    root = require_folder(request.root, "UCF101", _GET)
    split = request.official_split("ucf101", _SPLITS) or 1
    lists = _find_lists_folder(root)
    classes = _read_classes(lists / "classInd.txt")
    videos_root = next(root / name for name in _VIDEOS if (root / name).is_dir())
    finder = _VideoFinder(videos_root, classes)
    videos = []
    for subset in ("train", "test"):
        path = _require_list(lists / f"{subset}list{split:02d}.txt")
        subset_videos = [finder.find(path, line, subset) for line in read_lines(path)]
        if not subset_videos:
            raise DatasetError(f"the list {path} of UCF101 is empty", _GET)
        videos.extend(subset_videos)
    return make_listing(
        "ucf101",
        videos_root,
        classes,
        videos,
        hint=_GET,
        split=split,
        warnings=finder.warnings(),
        folder_warnings=class_folder_warnings("ucf101", videos_root, classes),
        num_official_classes=_NUM_CLASSES,
        link_boundary=request.link_boundary,
    )


UCF101 = Dataset(name="ucf101", list_videos=list_ucf101, default_sampling="dense", splits=_SPLITS)


def _find_lists_folder(root: Path) -> Path:
    folders = [root / "ucfTrainTestlist", root.parent / "ucfTrainTestlist", root / "annotations"]
    for folder in folders:
        if (folder / "classInd.txt").is_file():
            return folder
    # the first folder that exists, so that the error names the one list that is missing
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    raise DatasetError(f"the official lists of UCF101: there is no {folder / 'classInd.txt'}", _GET)


def _require_list(path: Path) -> Path:
    if not path.is_file():
        raise DatasetError(f"the official lists of UCF101: there is no {path}", _GET)
    return path


def _read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names in label order; the numbers in the file begin with 1."""
    rows = [line.split(maxsplit=1) for line in read_lines(path)]
    if bad := [row for row in rows if len(row) != 2 or not re.fullmatch(r"[0-9]+", row[0])]:
        raise DatasetError(f"{path} holds {' '.join(bad[0])!r}, not a number and a class", _GET)
    numbered = sorted((int(number), name) for number, name in rows)
    if not numbered or [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        raise DatasetError(f"the numbers in {path} must run from 1, each once, without a gap", _GET)
    classes = tuple(name for _, name in numbered)
    check_distinct(classes, "classes")
    return classes


class _VideoFinder:
    """Finds the files of listed names; reads each class folder once."""

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        self._root, self._classes = root, classes
        self._labels = {normalize_name(name): label for label, name in enumerate(classes)}
        self._folders = index_names(root)
        self._files: dict[str, dict[str, str]] = {}
        self._num_wrong_labels = 0

    def find(self, list_path: Path, line: str, subset: str) -> VideoRef:
        match = _LINE.fullmatch(line)
        if match is None:
            raise DatasetError(f"{list_path} holds {line!r}, not <Class>/<video>", _GET)
        folder, name = normalize_name(match["folder"]), match["file"]
        if folder not in self._labels:
            raise DatasetError(f"{list_path} holds {line!r}, but classInd.txt has no class {match['folder']!r}", _GET)
        label = self._labels[folder]
        self._num_wrong_labels += match["number"] is not None and int(match["number"]) != label + 1
        class_name = self._classes[label]
        group = _GROUP.search(name)
        return VideoRef(
            video_id=f"{class_name}/{name}",
            path=self._path(folder, normalize_name(name)),
            label=label,
            class_name=class_name,
            subset=subset,
            group=f"{class_name}/{group[1].lower()}" if group else None,
        )

    def _path(self, folder: str, name: str) -> Path | None:
        actual = self._folders.get(folder)
        if actual is None:
            return None
        if folder not in self._files:
            self._files[folder] = index_names(self._root / actual)
        file = self._files[folder].get(name)
        return None if file is None else self._root / actual / file

    def warnings(self) -> tuple[str, ...]:
        if not self._num_wrong_labels:
            return ()
        return (f"lines whose number is not that of classInd.txt: {self._num_wrong_labels:,}; the class name decides",)
