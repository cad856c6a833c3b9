"""UCF101: `UCF-101/<Class>/v_<Class>_gXX_cYY.avi` with the official lists in `ucfTrainTestlist/`."""

import re
from pathlib import Path

from respike.data.layouts.base import LAYOUTS, Layout, ListingRequest
from respike.data.layouts.lists import check_unique, read_lines, require_any, require_folder, scan
from respike.errors import LayoutError
from respike.sample import VideoListing, VideoRef

_PAGE = "https://www.crcv.ucf.edu/research/data-sets/ucf101/"
_GET = f"download UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from {_PAGE} and extract both there"
_GROUP = re.compile(r"_(g\d+)_c\d+", re.IGNORECASE)


def list_ucf101(request: ListingRequest) -> VideoListing:
    """List one of the three splits. Labels come from classInd.txt, a video's class from its list, case aside.

    Raises LayoutError where the root, a list or a class of the list is missing.
    """
    root = require_folder(request.root, "UCF101", _GET)
    split = request.split or 1
    lists = require_any(
        (root / "ucfTrainTestlist", root.parent / "ucfTrainTestlist"), "the official lists of UCF101", _GET
    )
    classes = _read_classes(lists / "classInd.txt")
    videos_root = root / "UCF-101" if (root / "UCF-101").is_dir() else root
    finder = _Finder(videos_root, classes)
    videos = [
        finder.find(line.split()[0], subset)
        for subset in ("train", "test")
        for line in read_lines(_list_path(lists, subset, split))
    ]
    return VideoListing(
        dataset="ucf101",
        split=split,
        evaluation_subset="test",
        classes=classes,
        videos=check_unique(videos),
        warnings=finder.warnings(),
    )


def _list_path(lists: Path, subset: str, split: int) -> Path:
    path = lists / f"{subset}list{split:02d}.txt"
    if not path.is_file():
        raise LayoutError(f"the list {path} of UCF101 is missing", _GET)
    return path


def _read_classes(path: Path) -> tuple[str, ...]:
    """Class names in label order; the numbers of the file begin with 1."""
    if not path.is_file():
        raise LayoutError(f"the class list {path} of UCF101 is missing", _GET)
    numbered = dict(sorted((int(number), name) for number, name in (line.split() for line in read_lines(path))))
    if list(numbered) != list(range(1, len(numbered) + 1)):
        raise LayoutError(f"the numbers in {path} do not run from 1 without a gap", _GET)
    return tuple(numbered.values())


class _Finder:
    """Matches listed names with files, reading each class folder once."""

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        self._root, self._classes = root, classes
        self._labels = {name.lower(): label for label, name in enumerate(classes)}
        self._folders = scan(root)
        self._files: dict[str, dict[str, str]] = {}

    def find(self, listed: str, subset: str) -> VideoRef:
        folder, _, name = listed.partition("/")
        if folder.lower() not in self._labels:
            raise LayoutError(f"{listed!r} is listed, but classInd.txt has no class {folder!r}", _GET)
        label = self._labels[folder.lower()]
        class_name = self._classes[label]
        group = _GROUP.search(name)
        return VideoRef(
            video_id=f"{class_name}/{name}",
            path=self._path(folder.lower(), name.lower()),
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
            self._files[folder] = scan(self._root / actual)
        file = self._files[folder].get(name)
        return None if file is None else self._root / actual / file

    def warnings(self) -> tuple[str, ...]:
        empty = [name for name in self._classes if not self._files.get(name.lower())]
        if not empty:
            return ()
        return (f"{len(empty)} of {len(self._classes)} classes have no video on disk: {', '.join(empty[:5])}",)


LAYOUTS.add("ucf101", Layout(name="ucf101", list_videos=list_ucf101, default_sampling="dense", splits=(1, 2, 3)))
