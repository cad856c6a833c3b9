"""obtain(): what a data set lacks is fetched and unpacked; stopped at any moment, the next call goes on."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from respike.data.obtain.rar import require_rar_program
from respike.data.obtain.sources import Source
from respike.data.obtain.unpack import unpack
from respike.download import FetchSettings, fetch
from respike.errors import LayoutError, RespikeError
from respike.files import canonical_json, folder_lock, write_atomically
from respike.progress import SILENCE, Progress
from respike.wording import agree, counted_of

_ARCHIVES = "archives"
_PATIENT = FetchSettings()


@dataclass(frozen=True, kw_only=True)
class ObtainSettings:
    """`drop_archives`: remove each archive once it is unpacked; `offline`: use only archives that are there."""

    drop_archives: bool = False
    offline: bool = False
    patience: FetchSettings = _PATIENT


def obtain(
    root: Path,
    sources: Sequence[Source],
    list_videos: Callable[[], object],
    settings: ObtainSettings = ObtainSettings(),
    *,
    progress: Progress = SILENCE,
) -> None:
    """Fetch and unpack, under `root`, those of the `sources` that are not there.

    Nothing is done where `list_videos` lists (raises no LayoutError), unless an earlier call was stopped half-way; what
    the user put there is left alone. Archives go to `ROOT/archives/`, also by hand, and each is fetched, unpacked and,
    on demand, removed before the next. Raises DownloadError, ArchiveError, or RespikeError where no program is
    installed that unpacks RAR.
    """
    plan_path = root / _ARCHIVES / "unfinished.json"
    if not plan_path.exists() and _lists(list_videos):
        progress.say(f"nothing to download: {root} holds the data set")
        return
    with folder_lock(root / _ARCHIVES / "lock", "downloading the data set"):
        names = _read_plan(plan_path)
        if names is None:
            names = [source.name for source in sources if not _is_there(source, root)]
        planned = [source for source in sources if source.name in names]
        if any(_is_rar(source) and not (root / source.to).exists() for source in planned):
            require_rar_program()  # said before hours of download, not after
        write_atomically(plan_path, canonical_json(names))
        for source in planned:
            _obtain_one(source, root, settings, progress)
        plan_path.unlink()


def _lists(list_videos: Callable[[], object]) -> bool:
    try:
        list_videos()
    except LayoutError:
        return False
    return True


def _is_there(source: Source, root: Path) -> bool:
    return any((root / name).exists() for name in (source.to, *source.unless))


def _is_rar(source: Source) -> bool:
    return source.name.lower().endswith(".rar")


def _read_plan(path: Path) -> list[str] | None:
    """What a call that was stopped had set out to get: a folder of it that is there may be half of what is wanted."""
    with suppress(OSError, ValueError):
        names = json.loads(path.read_text())
        if isinstance(names, list):
            return [str(name) for name in names]
    return None


def _obtain_one(source: Source, root: Path, settings: ObtainSettings, progress: Progress) -> None:
    if source.is_list:
        list_path = _fetch(source, root / _ARCHIVES / source.name, settings, progress)
        archives = source.listed(list_path.read_text("utf-8", errors="replace"))
        missing = [archive for archive in archives if not (root / archive.to).exists()]
        if len(missing) < len(archives):
            num_there = len(archives) - len(missing)
            are = agree(num_there, "is", "are")
            progress.say(f"{source.to}: {counted_of(num_there, len(archives), 'archive')} {are} there")
        for archive in missing:
            _obtain_archive(archive, root, settings, progress, folder=source.to)
    elif not (root / source.to).exists():
        if source.is_archive:
            _obtain_archive(source, root, settings, progress)
        else:
            _fetch(source, root / source.to, settings, progress)


def _obtain_archive(
    source: Source, root: Path, settings: ObtainSettings, progress: Progress, *, folder: str = ""
) -> None:
    # an archive that was put beside the videos by hand will do as well
    by_hand = root / source.name
    path = by_hand if by_hand.is_file() else root / _ARCHIVES / folder / source.name
    _fetch(source, path, settings, progress)
    target = root / source.to
    target.parent.mkdir(parents=True, exist_ok=True)
    unpack(path, target, progress, nested=source.nested)
    if settings.drop_archives and path != by_hand:
        path.unlink()


def _fetch(source: Source, path: Path, settings: ObtainSettings, progress: Progress) -> Path:
    address, *mirrors = source.addresses
    try:
        return fetch(
            address,
            path,
            mirrors=mirrors,
            sha256=source.sha256,
            num_bytes=source.num_bytes,
            offline=settings.offline,
            progress=progress,
            settings=settings.patience,
        )
    except RespikeError as error:
        error.hint = f"{error.hint}; another address can be given with --sources"
        raise
