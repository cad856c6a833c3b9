"""Plan: which videos are in which shard, and which part builds which shard."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from respike.common.errors import SettingError
from respike.common.files import canonical_json
from respike.data.executors.base import WorkerDeath
from respike.data.prepare_config import PrepareConfig
from respike.data.shard import FORMAT_VERSION
from respike.types import VideoListing, VideoRef

STATE_FOLDER = ".respike"

ShardManifest = dict[str, Any]
"""What is known of a shard that is finished: of what it was made, what it holds, what was skipped."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to build: which videos go in, where it and its finished-mark are written.

    `members` stands for the settings and the videos, `fingerprint` also for the size and time of each source file, and
    `num_source_bytes` are the sizes of those together.
    `previous` is the mark of the finished shard where only the videos that it skipped are in question; `deaths` says
    how earlier attempts ended their worker.
    """

    name: str
    subset: str
    training: bool
    videos: tuple[VideoRef, ...]
    settings: PrepareConfig
    path: Path
    mark_path: Path
    members: str
    fingerprint: str
    num_source_bytes: int = 0
    previous: Mapping[str, Any] | None = None
    deaths: tuple[WorkerDeath, ...] = ()

    def __str__(self) -> str:
        return f"shard {self.name}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of `count` runs that share the shards of one output folder; `number` is from 1."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SettingError(f"part is {self.number}/{self.count}", "it must be from 1/N to N/N")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, tasks: Sequence[ShardTask]) -> list[ShardTask]:
        """The shards that this run builds: every `count`-th."""
        return list(tasks[self.number - 1 :: self.count])


def plan_shards(listing: VideoListing, out: Path, settings: PrepareConfig) -> list[ShardTask]:
    """Decide which videos stand in which shard, before anything is decoded.

    Within a subset the videos are permuted with the seed, so that a shard does not hold one class, and cut into
    shards of `videos_per_shard`. A video that turns out unreadable leaves a hole; nothing else moves.
    """
    tasks = []
    for subset in sorted({video.subset for video in listing.videos}):
        videos = [video for video in listing.videos if video.subset == subset]
        order = np.random.default_rng([settings.seed, len(videos)]).permutation(len(videos))
        for number, first in enumerate(range(0, len(videos), settings.videos_per_shard)):
            chosen = tuple(videos[place] for place in order[first : first + settings.videos_per_shard])
            name = f"{subset}-{number:06d}.tar"
            members = _members(chosen, settings)
            sources = [_source(video) for video in chosen]
            tasks.append(
                ShardTask(
                    name=name,
                    subset=subset,
                    training=subset == "train",
                    videos=chosen,
                    settings=settings,
                    path=out / name,
                    mark_path=out / STATE_FOLDER / "done" / f"{name}.json",
                    members=members,
                    fingerprint=_digest([members, sources]),
                    num_source_bytes=sum(source[0] for source in sources if source),
                )
            )
    return tasks


def _members(videos: Sequence[VideoRef], settings: PrepareConfig) -> str:
    """Changes with the videos that a shard is made of and the settings that decide what becomes of a whole one."""
    rows = [[video.video_id, video.label, video.class_name, video.subset, video.group] for video in videos]
    deciding = {name: value for name, value in settings.to_json().items() if name != "keep_partial"}
    return _digest([FORMAT_VERSION, deciding, rows])


def _source(video: VideoRef) -> list[int] | None:
    """Changes when the source file is written; None where there is none."""
    try:
        status = video.path.stat() if video.path is not None else None
    except OSError:
        return None
    return None if status is None else [status.st_size, status.st_mtime_ns]


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogateescape")).hexdigest()
