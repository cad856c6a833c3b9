"""The index of a set of shards: dataset.json, videos.jsonl, skipped.jsonl; all that is known without opening one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike.data.format import FORMAT_VERSION
from respike.errors import ShardError
from respike.files import canonical_json, sha256_of_bytes
from respike.sample import DataSpec

INDEX_NAME = "dataset.json"
VIDEOS_NAME = "videos.jsonl"
SKIPPED_NAME = "skipped.jsonl"
_CHECKSUM = "sha256"


@dataclass(frozen=True, kw_only=True)
class ShardRow:
    """One shard as the index knows it."""

    name: str
    subset: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class VideoRow:
    """One written video and the shard where its clips stand, in the order of the rows.

    `partial` says what was wrong with a video of which only the part before the damage was kept, None if it is whole.
    """

    video: str
    label: int
    subset: str
    group: str | None
    shard: str
    num_clips: int
    partial: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """All that is known of a set of shards without opening one."""

    root: Path
    spec: DataSpec
    shards: tuple[ShardRow, ...]
    videos: tuple[VideoRow, ...]
    num_listed: int
    num_written: int
    num_skipped: int
    num_clips: int
    event_density: float


def seal(index: dict[str, Any]) -> str:
    """The text of an index with its own checksum in it."""
    checksum = sha256_of_bytes(canonical_json(index).encode())
    return canonical_json(index | {_CHECKSUM: checksum}, indent=1)


def jsonl(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines, byte-identical for equal rows."""
    return "".join(canonical_json(row) + "\n" for row in rows)


def read_index(root: Path) -> DatasetIndex:
    """Read and check the index under `root`.

    Raises ShardError where there is none, where it was cut or changed, or where it is of another format version.
    """
    value, videos = _read_json(root)
    try:
        if value["format_version"] != FORMAT_VERSION:
            raise ShardError(
                f"{root} is of shard format {value['format_version']}, this respike reads {FORMAT_VERSION}",
                "update respike, or prepare the data again",
            )
        spec = DataSpec(
            dataset=value["dataset"],
            split=value["split"],
            evaluation_subset=value["evaluation_subset"],
            classes=tuple(value["classes"]),
            settings=value["settings"],
            fingerprint=value[_CHECKSUM],
        )
        counts = value["videos"]
        return DatasetIndex(
            root=root,
            spec=spec,
            shards=tuple(ShardRow(**row) for row in value["shards"]),
            videos=tuple(VideoRow(**json.loads(line)) for line in videos.splitlines()),
            num_listed=counts["listed"],
            num_written=counts["written"],
            num_skipped=counts["skipped"],
            num_clips=value["num_clips"],
            event_density=value["event_density"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"the index of {root} does not hold what it should: {error}", _AGAIN) from error


def _read_json(root: Path) -> tuple[dict[str, Any], str]:
    path = root / INDEX_NAME
    if not path.is_file():
        raise ShardError(f"there is no {INDEX_NAME} in {root}", "give the folder that `respike prepare` wrote")
    try:
        value = json.loads(path.read_bytes())
        checksum = value.pop(_CHECKSUM)
        if sha256_of_bytes(canonical_json(value).encode()) != checksum:
            raise ShardError(f"{path} was changed after it was written", _AGAIN)
        videos = (root / VIDEOS_NAME).read_bytes()
        if sha256_of_bytes(videos) != value["videos"]["rows_sha256"]:
            raise ShardError(f"{root / VIDEOS_NAME} was changed after it was written", _AGAIN)
        return value | {_CHECKSUM: checksum}, videos.decode()
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ShardError(f"the index of {root} cannot be read: {error}", _AGAIN) from error


_AGAIN = "run the same `respike prepare` again: finished shards are kept and the index is made anew"
