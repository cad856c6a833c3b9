"""Common to all datasets: what a dataset is, how its lists and folders are read, how a listing is put together."""

import contextlib
import csv
import dataclasses
import difflib
import errno
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from respike.common.errors import DatasetError, SettingError
from respike.common.text import counted, name_some
from respike.data.sampling import Sampling
from respike.types import VideoListing, VideoRef

# whatever ffmpeg decodes and people name so; audio and single pictures have other suffixes
VIDEO_SUFFIXES = frozenset(
    [
        *(".mp4", ".m4v", ".mov", ".qt", ".f4v", ".3gp", ".3g2", ".mj2"),
        *(".avi", ".divx", ".xvid", ".wmv", ".asf", ".wtv", ".dv", ".flv", ".rm", ".rmvb", ".amv"),
        *(".mkv", ".webm", ".ogv", ".ogm", ".mxf", ".nut", ".gif", ".ivf", ".y4m"),
        *(".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".mpe", ".mpv", ".vob", ".m1v", ".m2v"),
        *(".h264", ".264", ".h265", ".265", ".hevc"),
    ]
)
_ARCHIVE_SUFFIXES = (".rar", ".zip", ".tar", ".tar.gz", ".tgz")
_MAX_WARNINGS = 5
_MAX_SUFFIX_LENGTH = 12
# two names that are less similar than this have hardly a letter in common
_MIN_SIMILARITY = 0.7


@dataclass(frozen=True, kw_only=True)
class ListingRequest:
    """Where to look for a dataset, and which part of it to list.

    `split` is an official split, None the first one. `list_path` is a list file for `folder`. `seed`, 0 or more, draws
    the split of `folder` where none is given. Without `follow_symlinks`, links that lead out of `root` are not
    followed. Raises SettingError on a negative seed.
    """

    root: Path
    split: int | None = None
    seed: int = 0
    list_path: Path | None = None
    follow_symlinks: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SettingError(f"seed is {self.seed}", "give 0 or more", setting="seed")

    @property
    def link_boundary(self) -> Path | None:
        """The folder that no link may lead out of, None where links may lead anywhere."""
        return None if self.follow_symlinks else self.root

    def official_split(self, dataset: str, splits: tuple[int, ...]) -> int | None:
        """Return the split to list, out of `splits` of the dataset. Raises SettingError on another one."""
        if self.split is None:
            return splits[0] if splits else None
        if self.split not in splits:
            allowed = f"choose from {', '.join(map(str, splits))}" if splits else f"{dataset} has no splits"
            raise SettingError(f"split {self.split} of {dataset} does not exist", allowed, setting="split")
        return self.split


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset: how to list its videos, how clips are usually sampled, its official splits (empty: none)."""

    name: str
    list_videos: Callable[[ListingRequest], VideoListing]
    default_sampling: Sampling
    splits: tuple[int, ...] = ()


def read_text(path: Path) -> str:
    """Read a list file as UTF-8, with or without a byte-order mark, else as Latin-1.

    Raises DatasetError where the file cannot be read or holds zero bytes.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read the list {path}: {error.strerror}", "check the path") from error
    if b"\0" in content:
        raise DatasetError(f"the list {path} holds zero bytes, so it is not a text", "save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def split_lines(text: str) -> list[str]:
    """Split a text into lines that end with CRLF, LF or CR."""
    # splitlines() also cuts at characters that occur in file names: NEL in Latin-1, line separators in JSON
    return re.split(r"\r\n?|\n", text)


def read_lines(path: Path) -> list[str]:
    """Read the lines of a list file, without blank lines and without white space at either end."""
    return [stripped for line in split_lines(read_text(path)) if (stripped := line.strip(" \t"))]


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each row of a CSV file that is not blank. Raises DatasetError on malformed CSV."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DatasetError(
            f"{path} line {reader.line_num} is not CSV: {error}", "save it as CSV with commas"
        ) from error


def require_folder(path: Path, what: str, hint: str) -> Path:
    """Return `path` if it is a folder. Raises DatasetError, with `hint`, that says what was looked for."""
    try:
        is_folder = path.is_dir()
    except OSError:  # a name that is too long
        is_folder = False
    if not is_folder:
        raise DatasetError(f"there is no folder {path} to look for {what} in", hint)
    return path


def is_video(name: str) -> bool:
    """Return whether a file name has the suffix of a video and is not hidden, as `._x.avi` of macOS is."""
    # faster than os.path.splitext(): this runs on every file of the largest datasets
    _, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix.lower()}" in VIDEO_SUFFIXES and name[0] != "."


def to_text(name: str) -> str:
    """Return a name from disk as text that can be written anywhere.

    A name on disk is bytes. They are read as UTF-8 in every locale, and as Latin-1 where they are not UTF-8.
    """
    if name.isascii():
        return name
    content = os.fsencode(name)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def to_disk(name: str) -> str:
    """Return the name by which Python finds a file whose name on disk is `name` in UTF-8, in every locale."""
    return name if name.isascii() else os.fsdecode(name.encode("utf-8", "surrogateescape"))


def _disk_order(name: str) -> str:
    """The key by which names from disk are sorted: their order does not depend on the locale."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "surrogateescape")


def normalize_name(name: str) -> str:
    """Return the form in which two spellings of a name are equal: lower case, accents as single characters."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).lower()


def index_names(folder: Path) -> dict[str, str]:
    """Map normalized names to the names on disk in a folder; empty where there is no folder.

    Raises DatasetError on two names that differ in case only, and on a folder that cannot be read.
    """
    found: dict[str, str] = {}
    try:
        names = sorted(os.listdir(folder), key=_disk_order)  # noqa: PTH208 only names are needed
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return found
        raise _unreadable_folder(folder, error) from error
    for name in names:
        other = found.setdefault(normalize_name(to_text(name)), name)
        if other != name:
            raise DatasetError(
                f"{folder} holds {other!r} and {name!r}, which differ in case only", "remove one of them"
            )
    return found


def path_exists(path: Path) -> bool:
    """Return whether `path` exists, links followed; False also for a name that is too long for any disk."""
    try:
        return path.exists()
    except OSError:
        return False


def find_path(root: Path, relative: str) -> Path | None:
    """Return the path of `relative` under `root`, also where the disk spells accents otherwise; None if missing."""
    if path_exists(path := root / to_disk(relative)):
        return path
    if relative.isascii():
        return None
    # part by part: a folder and a file in it may come from different systems
    path = root
    for part in relative.split("/"):
        forms = [part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part)]
        spellings = [to_disk(form) for form in forms]
        with contextlib.suppress(UnicodeEncodeError):
            spellings.append(os.fsdecode(part.encode("latin-1")))
        existing = [path / spelling for spelling in spellings if path_exists(path / spelling)]
        if not existing:
            return None
        path = existing[0]
    return path


@dataclass(frozen=True, kw_only=True)
class VideoFolder:
    """One folder under a root: its `parts` below the root, its `path`, the sorted file names of its videos.

    `broken_links` are those of the names that are links to nothing. `others` are files without the suffix of a video.
    """

    parts: tuple[str, ...]
    path: Path
    videos: tuple[str, ...]
    broken_links: frozenset[str]
    others: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VideoTree:
    """All folders under a root, parents before children, and the links to folders that were not followed."""

    folders: tuple[VideoFolder, ...]
    skipped_links: tuple[str, ...]

    def warnings(self) -> tuple[str, ...]:
        """Return one line about links that were not followed, if there are any."""
        if not self.skipped_links:
            return ()
        return (f"links not followed, since their folders are listed already: {name_some(self.skipped_links)}",)


def find_videos(root: Path) -> VideoTree:
    """Find every video under `root`, outside of hidden folders.

    Links to files are followed. A link to a folder is followed where it leads out of the root to a place that is not
    listed yet, such as a subset on another disk. Other links to folders are skipped, so no loop can form and no video
    is listed twice. Raises DatasetError on a folder that cannot be read.
    """
    folders: list[VideoFolder] = []
    skipped_links: list[str] = []
    listed_places = [os.path.realpath(root)]
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        path = root.joinpath(*parts)
        videos: list[str] = []
        broken_links: list[str] = []
        others: list[str] = []
        children: list[tuple[str, ...]] = []
        for entry in _read_entries(path):
            if _is_folder(entry):
                place = os.path.realpath(entry.path) if entry.is_symlink() else None
                if place is not None and any(_overlap(place, other) for other in listed_places):
                    skipped_links.append("/".join((*parts, entry.name)))
                    continue
                if place is not None:
                    listed_places.append(place)
                children.append((*parts, entry.name))
            elif is_video(entry.name):
                videos.append(entry.name)
                if entry.is_symlink() and not path_exists(Path(entry.path)):
                    broken_links.append(entry.name)
            else:
                others.append(entry.name)
        folders.append(
            VideoFolder(
                parts=parts,
                path=path,
                videos=tuple(videos),
                broken_links=frozenset(broken_links),
                others=tuple(others),
            )
        )
        waiting.extend(reversed(children))
    return VideoTree(folders=tuple(folders), skipped_links=tuple(map(to_text, skipped_links)))


def describe_left_out(names: Iterable[str]) -> tuple[str, ...]:
    """Return one line that counts files without the suffix of a video, by suffix; none where there is no such file."""
    counts = Counter(_suffix_of(to_text(name)) for name in names)
    if not counts:
        return ()
    # the most frequent first
    shown = [f"{suffix}: {count:,}" for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return (f"files left out, since their suffixes are not those of videos: {counts.total():,} ({name_some(shown)})",)


def _suffix_of(name: str) -> str:
    _, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()[:_MAX_SUFFIX_LENGTH]}" if dot and suffix.isprintable() and suffix else "no suffix"


def _read_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if entry.name[0] != "."), key=lambda entry: _disk_order(entry.name)
            )
    except OSError as error:
        raise _unreadable_folder(folder, error) from error


def _unreadable_folder(folder: Path, error: OSError) -> DatasetError:
    return DatasetError(f"cannot read the folder {folder}: {error.strerror}", "check its permissions and links")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _overlap(place: str, other: str) -> bool:
    """Return whether one of two folders contains the other or is the other."""
    return f"{place}/".startswith(f"{other}/") or f"{other}/".startswith(f"{place}/")


def class_folder_warnings(dataset: str, root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return a line on each folder under `root` that holds videos and is not a class, with the class it may be.

    Further lines name class folders that are one level too deep, and classes that are there as archives only. Raises
    DatasetError where `root` cannot be read or two names in it differ in case only.
    """
    found = index_names(root)
    known = {normalize_name(name): name for name in classes}
    without_folder = {key: name for key, name in known.items() if key not in found}
    unknown, holders = [], []
    for key, name in found.items():
        if key not in known:
            inside = [to_text(each) for each in _names_in(root / name)]
            if any(map(is_video, inside)):
                unknown.append(name)
            elif any(normalize_name(each) in known for each in inside):
                holders.append(name)
    lines = [_unknown_folder_line(dataset, root / name, without_folder, known) for name in unknown[:_MAX_WARNINGS]]
    if (num_more := len(unknown) - _MAX_WARNINGS) > 0:
        lines.append(f"more folders under {root} that are not a class and are skipped: {num_more:,}")
    lines += [f"{root / name} holds class folders, which are looked for in {root}: move them there" for name in holders]
    archives = [f"{name}{suffix}" for name in without_folder.values() for suffix in _ARCHIVE_SUFFIXES]
    if packed := [name for name in archives if normalize_name(name) in found]:
        lines.append(f"classes still packed under {root}: {len(packed):,} ({name_some(packed)}); unpack them")
    return tuple(lines)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 only names are needed
    except OSError:  # a file, or a folder that this user may not read
        return []


def _unknown_folder_line(
    dataset: str, folder: Path, without_folder: Mapping[str, str], known: Mapping[str, str]
) -> str:
    problem = f"the folder {folder} is not a class of {dataset} and is skipped"
    name = normalize_name(to_text(folder.name))
    if near := difflib.get_close_matches(name, without_folder, n=1, cutoff=_MIN_SIMILARITY):
        return f"{problem}: is it {without_folder[near[0]]}, which has no folder? Then rename it"
    if near := difflib.get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY):
        return f"{problem}: the nearest class, {known[near[0]]}, has a folder already"
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
    folder_warnings: Sequence[str] = (),
    num_official_classes: int | None = None,
    link_boundary: Path | None = None,
) -> VideoListing:
    """Put a listing together from what the lists name and what was found under `root`.

    A class without any video on disk keeps its label, and a warning names it. Another warning says so if the number of
    classes is not `num_official_classes`. `folder_warnings` are lines on folders that are not a class. A video whose
    links lead out of `link_boundary` counts as missing, with a warning. Raises DatasetError, with `hint`, where nothing
    is listed, nothing listed is on disk, a video is listed twice, or two names differ in case only.
    """
    check_distinct(classes, "classes")
    if not videos:
        raise DatasetError(f"{dataset}: no video is listed for {root}", hint)
    _check_listed_once(videos)
    lines = list(warnings)
    if link_boundary is not None:
        videos, outside = _drop_paths_outside(videos, link_boundary)
        if outside:
            lines.append(
                f"videos that are links out of {link_boundary} and count as missing: "
                f"{len(outside):,} ({name_some(outside)})"
            )
    labels_on_disk = {video.label for video in videos if video.path is not None}
    if not labels_on_disk:
        seen = "; ".join([f"the first is {videos[0].video_id}", *folder_warnings])
        raise DatasetError(f"{dataset}: none of the {len(videos):,} listed videos is under {root}; {seen}", hint)
    lines.extend(folder_warnings)
    if num_official_classes not in (None, len(classes)):
        lines.append(f"the lists hold {counted(len(classes), 'class')}, {dataset} has {num_official_classes}")
    if empty := [name for label, name in enumerate(classes) if label not in labels_on_disk]:
        lines.append(f"classes without a video on disk: {len(empty):,} of {len(classes):,} ({name_some(empty)})")
    return VideoListing(
        dataset=dataset,
        split=split,
        evaluation_subset=evaluation_subset,
        classes=tuple(classes),
        videos=tuple(videos),
        warnings=tuple(lines),
    )


def check_distinct(names: Iterable[str], what: str, key: Callable[[str], str] = normalize_name) -> None:
    """Raise DatasetError that gives both names where two have the same `key`; by default, differ in case only."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.get(key(name))) is not None:
            raise DatasetError(
                f"the {what} {other!r} and {name!r} are too similar", "use one name, or two that differ in more"
            )
        seen[key(name)] = name


def _check_listed_once(videos: Iterable[VideoRef]) -> None:
    """Raise DatasetError that gives both where a video is listed twice, in one subset or two, ignoring case."""
    seen: dict[str, VideoRef] = {}
    for video in videos:
        other = seen.setdefault(normalize_name(video.video_id), video)
        if other is not video:
            raise DatasetError(
                f"{other.video_id!r} ({other.subset}) and {video.video_id!r} ({video.subset}) are both listed",
                "list each video once, in one subset; names may not differ in case only",
            )


def _drop_paths_outside(videos: Iterable[VideoRef], boundary: Path) -> tuple[list[VideoRef], list[str]]:
    """Return the videos, without the paths that really are outside of `boundary`, and the ids of those."""
    inside = f"{os.path.realpath(boundary)}{os.sep}"
    kept, outside = [], []
    for video in videos:
        if video.path is not None and not os.path.realpath(video.path).startswith(inside):
            outside.append(video.video_id)
            video = dataclasses.replace(video, path=None)
        kept.append(video)
    return kept, outside
