"""Folders: what lies in them, found in one pass that asks the disk for no single file."""

import contextlib
import errno
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from respike.errors import LayoutError
from respike.wording import name_some

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
