"""Class folders: what lies on disk held against the classes that lists name, so that a misnamed folder is told."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from respike.data.layouts.folders import fold, is_video, scan
from respike.wording import agree, counted, name_some

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
