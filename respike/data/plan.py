"""Plan: which videos are in which shard, and which part of a run builds which shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from respike.common.errors import SettingError
from respike.common.files import canonical_json, sha256_of_bytes
from respike.data.executors.base import WorkerDeath
from respike.data.index import manifest_name
from respike.data.prepare_config import PrepareConfig
from respike.data.shard import FORMAT_VERSION
from respike.types import VideoListing, VideoRef

ShardManifest = dict[str, Any]
"""What is known about a finished shard: what it was made from, what it holds, what was skipped. Plain JSON values."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to build: its videos, its settings, and where it and its manifest are written.

    `members` is a digest of the settings and the videos, `fingerprint` also of the size and time of each source file.
    `num_source_bytes` is the size of all source files together. `previous` is the manifest of the finished shard if
    only its skipped videos are to be tried again. `deaths` are those of workers in earlier attempts.
    """

    name: str
    subset: str
    training: bool
    videos: tuple[VideoRef, ...]
    config: PrepareConfig
    path: Path
    manifest_path: Path
    members: str
    fingerprint: str
    num_source_bytes: int = 0
    previous: Mapping[str, Any] | None = None
    deaths: tuple[WorkerDeath, ...] = ()

    def __str__(self) -> str:
        return f"shard {self.name}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of `count` runs that share the shards of one output folder; `number` counts from 1."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SettingError(f"part is {self.number}/{self.count}", "it must be from 1/N to N/N", setting="part")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def select(self, tasks: Sequence[ShardTask]) -> list[ShardTask]:
        """Return the shards that this run builds: every `count`-th."""
        return list(tasks[self.number - 1 :: self.count])


def plan_shards(listing: VideoListing, out: Path, config: PrepareConfig) -> list[ShardTask]:
    """Decide which videos are in which shard, before anything is decoded.

    Within a subset the videos are permuted with the seed, so that a shard does not hold a single class, and cut into
    shards of `config.videos_per_shard`. A video that turns out to be unreadable leaves a hole; no other video moves.
    """
    tasks = []
    listed = _with_equal_types(listing.videos)
    for subset in sorted({video.subset for video in listed}):
        videos = [video for video in listed if video.subset == subset]
        order = np.random.default_rng([config.seed, len(videos)]).permutation(len(videos))
        for number, first in enumerate(range(0, len(videos), config.videos_per_shard)):
            chosen = tuple(videos[place] for place in order[first : first + config.videos_per_shard])
            name = f"{subset}-{number:06d}.tar"
            members = _digest_members(chosen, config)
            sources = [_stat_source(video) for video in chosen]
            tasks.append(
                ShardTask(
                    name=name,
                    subset=subset,
                    training=subset == "train",
                    videos=chosen,
                    config=config,
                    path=out / name,
                    manifest_path=out / manifest_name(name),
                    members=members,
                    fingerprint=_digest([members, sources]),
                    num_source_bytes=sum(source[0] for source in sources if source),
                )
            )
    return tasks


def _with_equal_types(videos: Sequence[VideoRef]) -> Sequence[VideoRef]:
    """Return the videos with groups of one type: where some have a group, those without have an empty one.

    Libraries that read samples as a table take the type of a column from the first samples.
    """
    if all(video.group is None for video in videos):
        return videos
    return [replace(video, group="") if video.group is None else video for video in videos]


def _digest_members(videos: Sequence[VideoRef], config: PrepareConfig) -> str:
    """A digest of the videos of a shard and of the settings that decide its bytes if no video is damaged."""
    rows = [[video.video_id, video.label, video.class_name, video.subset, video.group] for video in videos]
    settings = {name: value for name, value in config.to_json().items() if name != "keep_partial"}
    return _digest([FORMAT_VERSION, settings, rows])


def _stat_source(video: VideoRef) -> list[int] | None:
    """Size and time of a video file, which change when it is written; None if there is no file."""
    try:
        status = video.path.stat() if video.path is not None else None
    except OSError:
        return None
    return None if status is None else [status.st_size, status.st_mtime_ns]


def _digest(value: object) -> str:
    return sha256_of_bytes(canonical_json(value).encode("utf-8", "surrogateescape"))
