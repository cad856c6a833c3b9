"""HMDB51: `<class>/<name>.avi` with the official splits in `testTrainMulti_7030_splits/`."""

from pathlib import Path

from respike.data.layouts.base import LAYOUTS, Layout, ListingRequest
from respike.data.layouts.lists import check_unique, read_lines, require_any, require_folder, scan
from respike.errors import LayoutError
from respike.sample import VideoListing, VideoRef

_PAGE = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
_GET = f"download hmdb51_org.rar and test_train_splits.rar from {_PAGE} and extract both there, and the RARs within"
_SUBSETS = {"1": "train", "2": "test"}


def list_hmdb51(request: ListingRequest) -> VideoListing:
    """List one of the three splits: code 1 trains, 2 tests, 0 is left out. Classes are sorted by name.

    Raises LayoutError where the root, the splits or one class's list is missing or not of the official form.
    """
    root = require_folder(request.root, "HMDB51", _GET)
    split = request.split or 1
    names = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits")
    lists = require_any((root / name for name in names), "the official splits of HMDB51", _GET)
    suffix = f"_test_split{split}.txt"
    paths = {path.name.removesuffix(suffix): path for path in lists.iterdir() if path.name.endswith(suffix)}
    if not paths:
        raise LayoutError(f"{lists} holds no list *{suffix}", _GET)
    classes = tuple(sorted(paths))
    videos_root = next((root / name for name in ("hmdb51", "videos") if (root / name).is_dir()), root)
    folders = scan(videos_root)
    videos: list[VideoRef] = []
    empty: list[str] = []
    for label, name in enumerate(classes):
        folder = videos_root / folders.get(name.lower(), name)
        files = scan(folder)
        if not files:
            empty.append(name)
        videos.extend(_list_class(paths[name], name, label, folder, files))
    return VideoListing(
        dataset="hmdb51",
        split=split,
        evaluation_subset="test",
        classes=classes,
        videos=check_unique(sorted(videos, key=lambda video: (video.subset != "train", video.video_id))),
        warnings=(f"{len(empty)} classes have no video on disk: {', '.join(empty[:5])}",) if empty else (),
    )


def _list_class(path: Path, name: str, label: int, folder: Path, files: dict[str, str]) -> list[VideoRef]:
    videos = []
    for line in read_lines(path):
        # names may hold anything but a space at the end, so the code is what follows the last one
        file, _, code = line.rpartition(" ")
        if code not in ("0", "1", "2"):
            raise LayoutError(f"{path} holds {line!r}, not a file name and 0, 1 or 2", _GET)
        if code in _SUBSETS:
            found = files.get(file.strip().lower())
            videos.append(
                VideoRef(
                    video_id=f"{name}/{file.strip()}",
                    path=None if found is None else folder / found,
                    label=label,
                    class_name=name,
                    subset=_SUBSETS[code],
                )
            )
    return videos


LAYOUTS.add("hmdb51", Layout(name="hmdb51", list_videos=list_hmdb51, default_sampling="dense", splits=(1, 2, 3)))
