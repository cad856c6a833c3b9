"""Lists and folders: reading text as it was saved, finding files in one pass, refusing what is ambiguous."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from respike.errors import LayoutError
from respike.sample import VideoRef

VIDEO_SUFFIXES = frozenset(
    [".avi", ".mp4", ".mkv", ".webm", ".mov", ".wmv", ".m4v", ".mpg", ".mpeg", ".flv", ".ts", ".3gp"]
)


def read_text(path: Path) -> str:
    """Text as UTF-8, with or without a byte-order mark, else Latin-1. Raises LayoutError where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LayoutError(f"cannot read the list {path}: {error.strerror}", "check the path") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_lines(path: Path) -> list[str]:
    """The lines of a list without blank ones and without white space at either end, whatever its line ends."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def require_folder(path: Path, what: str, hint: str) -> Path:
    """Return `path` if it is a folder. Raises LayoutError that says what was looked for and how to get it."""
    if not path.is_dir():
        raise LayoutError(f"{what}: there is no folder {path}", hint)
    return path


def require_any(paths: Iterable[Path], what: str, hint: str) -> Path:
    """Return the first of `paths` that exists. Raises LayoutError that names where it was looked for."""
    looked = list(paths)
    for path in looked:
        if path.exists():
            return path
    raise LayoutError(f"{what} not found; looked for {' and '.join(map(str, looked))}", hint)


def walk_videos(folder: Path) -> Iterator[str]:
    """Paths of all videos under `folder`, relative to it with `/`, sorted.

    Links to files are followed, links to folders are not, so that a link back up cannot make a loop.
    """
    for current, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        relative = Path(current).relative_to(folder)
        for name in sorted(files):
            if is_video(name):
                yield (relative / name).as_posix()


def is_video(name: str) -> bool:
    """Whether a file name looks like a video's."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def scan(folder: Path) -> dict[str, str]:
    """File names of a folder by their lower-case form. Raises LayoutError on two that differ in case only."""
    found: dict[str, str] = {}
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return found
    for name in names:
        other = found.setdefault(name.lower(), name)
        if other != name:
            raise LayoutError(f"{folder} holds both {other!r} and {name!r}, alike but for case", "remove one of them")
    return found


def check_unique(videos: Iterable[VideoRef]) -> tuple[VideoRef, ...]:
    """Return the videos. Raises LayoutError where one is listed twice, in one subset or in two."""
    seen: dict[str, VideoRef] = {}
    for video in videos:
        other = seen.setdefault(video.video_id.lower(), video)
        if other is not video:
            raise LayoutError(
                f"{other.video_id!r} ({other.subset}) and {video.video_id!r} ({video.subset}) are listed both",
                "each video may be listed once, in one subset; mend the list",
            )
    return tuple(seen.values())
