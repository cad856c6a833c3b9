"""What all datasets share: layouts, folders, lists, listings."""

import contextlib
import csv
import dataclasses
import difflib
import errno
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from respike.common.errors import LayoutError, SettingError
from respike.common.text import Registry, agree, counted, counted_of, name_some
from respike.data.sampling import Sampling
from respike.types import VideoListing, VideoRef


def read_text(path: Path) -> str:
    """Text as UTF-8, with or without a byte-order mark, else Latin-1. Raises LayoutError where it is no text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LayoutError(f"cannot read the list {path}: {error.strerror}", "check the path") from error
    if b"\0" in content:
        raise LayoutError(f"the list {path} holds zero bytes, so it is no list", "save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def split_lines(text: str) -> list[str]:
    """The lines of a text that ends them with CRLF, LF or CR."""
    # not splitlines(), which also cuts at characters that stand in names: NEL in Latin-1, line separators in JSON
    return re.split(r"\r\n?|\n", text)


def read_lines(path: Path) -> list[str]:
    """The lines of a list without blank ones and without white space at either end, whatever its line ends."""
    return [stripped for line in split_lines(read_text(path)) if (stripped := line.strip(" \t"))]


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each row of a CSV file that is not blank. Raises LayoutError where it is no CSV."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise LayoutError(f"{path} line {reader.line_num} is no CSV: {error}", "save it as CSV with commas") from error


VIDEO_SUFFIXES = frozenset(
    [".avi", ".mp4", ".mkv", ".webm", ".mov", ".wmv", ".m4v", ".mpg", ".mpeg", ".flv", ".ts", ".3gp"]
)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """One folder under a root: its `parts` below the root, its `path`, its videos' names, sorted.

    `dangling` are those names that are links to nothing.
    """

    parts: tuple[str, ...]
    path: Path
    videos: tuple[str, ...]
    dangling: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """All folders under a root, parents before children, and the links to folders that were not followed."""

    folders: tuple[Folder, ...]
    unfollowed: tuple[str, ...]

    def warnings(self) -> tuple[str, ...]:
        """One line on links that were not followed, if there are any."""
        if not self.unfollowed:
            return ()
        return (f"not followed, being links to folders that are listed already: {name_some(self.unfollowed)}",)


def require_folder(path: Path, what: str, hint: str) -> Path:
    """Return `path` if it is a folder. Raises LayoutError that says what was looked for and how to get it."""
    if not path.is_dir():
        raise LayoutError(f"there is no folder {path} to look for {what} in", hint)
    return path


def is_video(name: str) -> bool:
    """Whether a file name looks like a video's. Hidden files do not: `._x.avi` is what macOS leaves beside x.avi."""
    # not os.path.splitext(): this is asked of every file of the largest data sets
    _, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix.lower()}" in VIDEO_SUFFIXES and name[0] != "."


def readable(name: str) -> str:
    """A name from disk as text that can be written anywhere: bytes that are no UTF-8 are taken as Latin-1."""
    return name if name.isascii() or _is_unicode(name) else os.fsencode(name).decode("latin-1")


def _is_unicode(name: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in name)


def fold(name: str) -> str:
    """The form in which two names are one: case aside, and é the same in one character or in two."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", readable(name)).lower()


def scan(folder: Path) -> dict[str, str]:
    """Names in a folder by their folded form; empty where there is no folder.

    Raises LayoutError on two names that differ in case only, and on a folder that cannot be read.
    """
    found: dict[str, str] = {}
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 names are all that is wanted
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return found
        raise _unreadable(folder, error) from error
    for name in names:
        other = found.setdefault(fold(name), name)
        if other != name:
            raise LayoutError(f"{folder} holds both {other!r} and {name!r}, alike but for case", "remove one of them")
    return found


def find_videos(root: Path) -> Tree:
    """Find every video under `root`; hidden folders are passed by.

    Links to files are followed. A link to a folder is followed where it leads out of the root to a place not yet
    listed, as a large data set's subset on another disk; one that leads back is not, so no loop can form and no video
    is listed twice. Raises LayoutError on a folder that cannot be read.
    """
    folders: list[Folder] = []
    unfollowed: list[str] = []
    places = [os.path.realpath(root)]
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        path = root.joinpath(*parts)
        videos: list[str] = []
        dangling: list[str] = []
        children: list[tuple[str, ...]] = []
        for entry in _entries(path):
            if _is_folder(entry):
                if entry.is_symlink() and not _claim(places, os.path.realpath(entry.path)):
                    unfollowed.append("/".join((*parts, entry.name)))
                else:
                    children.append((*parts, entry.name))
            elif is_video(entry.name):
                videos.append(entry.name)
                if entry.is_symlink() and not exists(Path(entry.path)):
                    dangling.append(entry.name)
        folders.append(Folder(parts=parts, path=path, videos=tuple(videos), dangling=frozenset(dangling)))
        waiting.extend(reversed(children))
    return Tree(folders=tuple(folders), unfollowed=tuple(map(readable, unfollowed)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: OSError) -> LayoutError:
    return LayoutError(f"cannot read the folder {folder}: {error.strerror}", "check its permissions and links")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _claim(places: list[str], place: str) -> bool:
    """Take `place` as a further one to list, unless it lies in one of `places` or holds one of them."""
    for other in places:
        if f"{place}/".startswith(f"{other}/") or f"{other}/".startswith(f"{place}/"):
            return False
    places.append(place)
    return True


def exists(path: Path) -> bool:
    """Whether something is at `path`, links followed; also where the path is one that no disk can hold."""
    try:
        return path.exists()
    except OSError:  # a name too long
        return False


def locate(root: Path, relative: str) -> Path | None:
    """Where `relative` lies under `root`, also if the disk spells its accents in another way; None if nowhere."""
    path: Path | None = root / relative
    if exists(root / relative) or relative.isascii():
        return path if exists(root / relative) else None
    # part by part: a folder and a file in it may have come from different systems
    path = root
    for part in relative.split("/"):
        path = next((path / spelling for spelling in _spellings(part) if exists(path / spelling)), None)
        if path is None:
            return None
    return path


def _spellings(part: str) -> list[str]:
    spellings = [part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part)]
    with contextlib.suppress(UnicodeEncodeError):
        spellings.append(os.fsdecode(part.encode("latin-1")))
    return spellings


_MOST_TOLD = 5
_PACKED = (".rar", ".zip", ".tar", ".tar.gz", ".tgz")
# below this two names have hardly a letter in common
_LEAST_ALIKE = 0.7


def tell_misnamed(dataset: str, root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """A line on each folder under `root` that holds videos and is no class, with the class that it may be.

    Told too: folders of classes that lie a level too deep, and classes that lie there as archives alone. Raises
    LayoutError where `root` cannot be read or two names in it differ in case only.
    """
    found = scan(root)
    known = {fold(name): name for name in classes}
    lacking = {folded: name for folded, name in known.items() if folded not in found}
    strangers, deeper = [], []
    for folded, name in found.items():
        if folded not in known:
            inside = _names_in(root / name)
            if any(map(is_video, inside)):
                strangers.append(name)
            elif any(fold(each) in known for each in inside):
                deeper.append(name)
    lines = [_tell(dataset, root / name, lacking, known) for name in strangers[:_MOST_TOLD]]
    if (num_more := len(strangers) - _MOST_TOLD) > 0:
        are = agree(num_more, "is no class and is", "are no classes and are")
        lines.append(f"{counted(num_more, 'more folder')} under {root} {are} left out")
    lines += [f"{root / name} holds class folders, which are looked for in {root}: move them there" for name in deeper]
    packed = [f"{name}{ending}" for name in lacking.values() for ending in _PACKED if fold(f"{name}{ending}") in found]
    if packed:
        lie = agree(len(packed), "lies as an archive that is", "lie as archives that are")
        lines.append(f"{counted(len(packed), 'class')} {lie} still to unpack under {root}: {name_some(packed)}")
    return tuple(lines)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 names are all that is wanted
    except OSError:  # a file, or a folder that is not ours to read
        return []


def _tell(dataset: str, folder: Path, lacking: Mapping[str, str], known: Mapping[str, str]) -> str:
    problem = f"the folder {folder} is no class of {dataset} and is left out"
    if near := difflib.get_close_matches(fold(folder.name), lacking, n=1, cutoff=_LEAST_ALIKE):
        return f"{problem}: is it {lacking[near[0]]}, which has no folder? Then rename it"
    if near := difflib.get_close_matches(fold(folder.name), known, n=1, cutoff=_LEAST_ALIKE):
        return f"{problem}: the nearest class, {known[near[0]]}, has a folder of its own"
    return problem


def make_listing(
    dataset: str,
    root: Path,
    classes: Sequence[str],
    videos: Sequence[VideoRef],
    *,
    hint: str,
    split: int | None = None,
    evaluation_subset: str = "test",
    warnings: Sequence[str] = (),
    misnamed: Sequence[str] = (),
    num_official_classes: int | None = None,
    fence: Path | None = None,
) -> VideoListing:
    """Put a listing together from what the lists name and what was found under `root`.

    A class of which no video was found keeps its label and is told in the warnings; so is another number of classes
    than the official one, and `misnamed`, lines on folders that are no class. A video that a link leads to out of
    `fence` counts as missing and is told. Raises LayoutError, with `hint`, where nothing is listed or nothing of it is
    on disk, and where a video is listed twice or two names differ in case only.
    """
    check_alike(classes, "classes")
    if not videos:
        raise LayoutError(f"{dataset}: no video is listed for {root}", hint)
    check_unique(videos)
    told = list(warnings)
    if fence is not None:
        videos, outside = keep_within(videos, fence)
        if outside:
            told.append(_tell_outside(outside, fence))
    present = {video.label for video in videos if video.path is not None}
    if not present:
        seen = "; ".join([f"the first is {videos[0].video_id}", *misnamed])
        raise LayoutError(f"{dataset}: none of the {len(videos):,} listed videos is under {root}; {seen}", hint)
    told.extend(misnamed)
    if num_official_classes not in (None, len(classes)):
        told.append(f"the lists hold {counted(len(classes), 'class')}, where {dataset} has {num_official_classes}")
    if empty := [name for label, name in enumerate(classes) if label not in present]:
        have = agree(len(empty), "has", "have")
        told.append(f"{counted_of(len(empty), len(classes), 'class')} {have} no video on disk: {name_some(empty)}")
    return VideoListing(
        dataset=dataset,
        split=split,
        evaluation_subset=evaluation_subset,
        classes=tuple(classes),
        videos=tuple(videos),
        warnings=tuple(told),
    )


def _tell_outside(names: Sequence[str], fence: Path) -> str:
    links, count = agree(len(names), "is a link", "are links"), agree(len(names), "counts", "count")
    return f"{counted(len(names), 'video')} {links} out of {fence} and {count} as missing: {name_some(names)}"


def keep_within(videos: Iterable[VideoRef], fence: Path) -> tuple[list[VideoRef], list[str]]:
    """The videos, without the path of those that really lie outside `fence`, and the ids of these."""
    inside = f"{os.path.realpath(fence)}{os.sep}"
    kept, outside = [], []
    for video in videos:
        if video.path is not None and not os.path.realpath(video.path).startswith(inside):
            outside.append(video.video_id)
            video = dataclasses.replace(video, path=None)
        kept.append(video)
    return kept, outside


def check_alike(names: Iterable[str], what: str, key: Callable[[str], str] = fold) -> None:
    """Raise LayoutError, naming both, where two of the names have the same `key`: by default, differ in case only."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.get(key(name))) is not None:
            raise LayoutError(f"the {what} {other!r} and {name!r} are alike", "give them one name, or two that differ")
        seen[key(name)] = name


def check_unique(videos: Iterable[VideoRef]) -> None:
    """Raise LayoutError, naming both, where a video is listed twice, in one subset or in two, case aside."""
    seen: dict[str, VideoRef] = {}
    for video in videos:
        other = seen.setdefault(fold(video.video_id), video)
        if other is not video:
            raise LayoutError(
                f"{other.video_id!r} ({other.subset}) and {video.video_id!r} ({video.subset}) are listed both",
                "each video may be listed once, in one subset, and names may not differ in case only",
            )


@dataclass(frozen=True, kw_only=True)
class ListingRequest:
    """Where to look and what for.

    `split` is an official one, None the first; `list_path` is a list for `folder`; `seed`, 0 or more, draws
    `folder`'s own split where none is given. Without `follow_symlinks` no link is followed that leads out of `root`.
    """

    root: Path
    split: int | None = None
    seed: int = 0
    list_path: Path | None = None
    follow_symlinks: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SettingError(f"seed is {self.seed}", "give 0 or more")

    @property
    def fence(self) -> Path | None:
        """The folder that no link may lead out of, None where links may lead anywhere."""
        return None if self.follow_symlinks else self.root

    def official_split(self, dataset: str, splits: tuple[int, ...]) -> int | None:
        """The split to list, of those that `dataset` has. Raises SettingError on another one."""
        if self.split is None:
            return splits[0] if splits else None
        if self.split not in splits:
            allowed = f"choose from {', '.join(map(str, splits))}" if splits else f"{dataset} has no splits"
            raise SettingError(f"split {self.split} of {dataset} does not exist", allowed)
        return self.split


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset: how to list it, how its clips are usually sampled, which official splits it has (none: empty)."""

    name: str
    list_videos: Callable[[ListingRequest], VideoListing]
    default_sampling: Sampling
    splits: tuple[int, ...] = ()


DATASETS: Registry[Dataset] = Registry("data set")
