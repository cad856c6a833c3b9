"""Listings: what was listed and found, put together; what is ambiguous is refused, what is empty is told."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from respike.data.layouts.folders import fold
from respike.errors import LayoutError
from respike.sample import VideoListing, VideoRef
from respike.wording import agree, counted, counted_of, name_some


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
