"""Verifying one shard: its bytes against the index, then every sample decoded and held against its row."""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike.data.engines.base import Report
from respike.data.format import EVENTS_MEMBER, INFO_MEMBER, key_member, read_sample, sample_key
from respike.data.index import ShardRow, VideoRow
from respike.data.shards import ShardReader
from respike.errors import ShardError
from respike.files import sha256_of_file
from respike.sample import EventClip

# one fault makes a shard bad; a few more show of what kind it is
_MOST_PROBLEMS = 3


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """One shard to look at: what the index says of it, and of its videos (None where videos.jsonl is damaged)."""

    path: Path
    row: ShardRow
    videos: tuple[VideoRow, ...] | None
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    quick: bool

    def __str__(self) -> str:
        return self.row.name


def check_shard(task: ShardCheck, report: Report) -> tuple[str, ...]:
    """What is wrong with a shard, a line each; nothing if it is whole. `report` hears how many more samples are done.

    Samples are decoded where the bytes are those of the index, and not with `quick`.
    """
    done = 0
    problems: list[str] = []
    try:
        if problem := _check_bytes(task.path, task.row):
            problems.append(problem)
        elif not task.quick:
            for found in _check_samples(task):
                problems += found[:1]
                done += 1
                report(1)
                if len(problems) == _MOST_PROBLEMS:
                    break
    except ShardError as error:
        # the line that tells it begins with the shard's name already
        problems.append(error.problem.removeprefix(f"{task.path} ").removeprefix(f"{task.row.name} "))
    except OSError as error:
        problems.append(f"cannot be read: {error.strerror or error}")
    report(task.row.num_samples - done)
    return tuple(problems)


def _check_bytes(path: Path, row: ShardRow) -> str | None:
    if not path.is_file():
        return "missing"
    if (num_bytes := path.stat().st_size) != row.num_bytes:
        return f"holds {num_bytes:,} bytes, the index says {row.num_bytes:,}"
    if sha256_of_file(path) != row.sha256:
        return "SHA-256 differs from the index: its bytes were changed"
    return None


def _check_samples(task: ShardCheck) -> Iterator[list[str]]:
    """Yield what is wrong with each sample. Raises ShardError where the shard cannot be read by samples."""
    reader = ShardReader(task.path)
    if len(reader) != task.row.num_samples:
        raise ShardError(f"holds {len(reader)} samples, the index says {task.row.num_samples}")
    expected: Iterator[tuple[VideoRow, int] | None]
    if task.videos is None:
        expected = itertools.repeat(None, len(reader))
    else:
        expected = ((video, clip) for video in task.videos for clip in range(video.num_clips))
    for position, row in enumerate(expected):
        try:
            clip = read_sample(reader, position, task.settings)
        except ShardError as error:
            yield [error.problem]
        else:
            yield [
                f"sample {clip.key}: {problem}"
                for problem in _contradictions(clip, reader.member_sizes(position), task, row)
            ]


def _contradictions(
    clip: EventClip, members: Collection[str], task: ShardCheck, row: tuple[VideoRow, int] | None
) -> Iterator[str]:
    """Where a decoded sample and the index say different things."""
    names = {*map(key_member, range(len(clip.keys))), EVENTS_MEMBER, INFO_MEMBER}
    if strange := sorted(set(members) - names):
        yield f"the member {strange[0]} belongs to no sample"
    info, length = clip.info, task.settings["clip_length"]
    if not len(info.frame_indices) == len(info.times_seconds) == length:
        yield f"{len(info.frame_indices)} frames and {len(info.times_seconds)} times for a clip of {length}"
    if not (type(info.num_padded) is int and 0 <= info.num_padded < length):
        yield f"{info.num_padded} of {length} frames are padding"
    if row is None:
        return
    video, number = row
    said: dict[str, Any] = {"key": clip.key, "class_name": info.class_name, "clip_index": info.clip_index}
    said |= {"video": info.video, "label": info.label, "subset": info.subset, "group": info.group}
    said |= {"partial": info.partial}
    expected = {"key": sample_key(video.video, number), "class_name": task.classes[video.label], "clip_index": number}
    expected |= {"video": video.video, "label": video.label, "subset": video.subset, "group": video.group}
    expected |= {"partial": video.partial is not None}
    for name, value in expected.items():
        if said[name] != value:
            yield f"{name} is {said[name]!r}, the index says {value!r}"
