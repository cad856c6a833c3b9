"""Demo folder: what the demo may write again, and what it leaves alone."""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from respike.common.errors import RespikeError
from respike.common.files import write_atomically

_MARK = ".respike-demo"
_MARK_TEXT = "made by `respike demo`, which makes it anew each time\n"
_PAGE_FILES = ("report.html", "curves.png", "confusion.png", "clips.png")
_VIDEO = re.compile(r"\d+\.mp4")
_HINT = "move it away, or give another --out"


def run_folder(out: Path, branches: str) -> Path:
    """Where the demo trains a network of these branches."""
    return out / "runs" / branches


def claim_folder(out: Path, branches: Iterable[str]) -> None:
    """Take `out` for a demo that trains these branches.

    Raises RespikeError that names the first thing there which the demo would remove, write over or learn from and has
    not made.
    """
    for kind in branches:
        _require_own_run(run_folder(out, kind))
    if not _is_marked(out):
        # what came to stand there before the demo did
        for path in (out / name for name in _PAGE_FILES):
            if path.exists():
                raise RespikeError(f"{path} is not the demo's, which would write over it", _HINT)
    require_own_videos(out / "videos")
    _mark(out)


def require_own_videos(root: Path) -> None:
    """Raise RespikeError that names what stands among the demo's videos and is none: it would be learned from."""
    if not root.is_dir():
        return
    for path in _find_foreign(root):
        raise RespikeError(f"{path} is not of the demo's making, and would be taken for a video of it", _HINT)


def renew_run(folder: Path) -> None:
    """Remove what the demo has trained in `folder` before, and mark it anew. Raises RespikeError on what is not its."""
    _require_own_run(folder)
    if folder.is_dir():
        for path in folder.iterdir():
            # the mark stays: a demo killed here must know its own again
            if path.name == _MARK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    _mark(folder)


def _require_own_run(folder: Path) -> None:
    # an empty folder is nobody's
    if folder.is_symlink() or (folder.exists() and not _is_marked(folder) and not _is_empty(folder)):
        raise RespikeError(f"{folder} was not made by this demo, which would train there anew", _HINT)


def _find_foreign(root: Path) -> Iterator[Path]:
    from respike.data.synthetic import SCENES, demo_classes

    classes = {name for scenes in SCENES for name in demo_classes(scenes)}
    for path in _visible(root):
        if path.name not in ("train", "test", "demo.json"):
            yield path
    for subset in (root / "train", root / "test"):
        for folder in _visible(subset):
            if folder.name not in classes:
                yield folder
                continue
            yield from (path for path in _visible(folder) if not _VIDEO.fullmatch(path.name))


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; what is hidden is no video, but a file under way."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _is_marked(folder: Path) -> bool:
    return (folder / _MARK).is_file()


def _mark(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _MARK, _MARK_TEXT)
