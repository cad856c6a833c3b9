"""The index of a set of shards: names of its files, dataset.json, videos.jsonl and skipped.jsonl."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike.common.errors import ShardError
from respike.common.files import INDEX_NAME, canonical_json, sha256_of_bytes, unseal
from respike.data.shard import FORMAT_VERSION, READ_FORMATS
from respike.types import COLORS, SUBSETS, DataSpec

# the files of a set
VIDEOS_NAME = "videos.jsonl"
SKIPPED_NAME = "skipped.jsonl"
CARD_NAME = "README.md"
SHARD_NAME = re.compile(rf"({'|'.join(SUBSETS)})-[0-9]{{6,}}\.tar")
SET_FILE_NAME = re.compile(
    "|".join([SHARD_NAME.pattern, *map(re.escape, (INDEX_NAME, VIDEOS_NAME, SKIPPED_NAME, CARD_NAME))])
)
# what a prepare run remembers beside them: settings, plan, locks, logs, and a manifest of each finished shard
STATE_FOLDER = ".respike"
MANIFEST_FOLDER = f"{STATE_FOLDER}/done"


def manifest_name(shard: str) -> str:
    """The path of the manifest of a finished shard, relative to the folder of its set."""
    return f"{MANIFEST_FOLDER}/{shard}.json"


# a sample has three members or more, each a header and a block: an index cannot list more samples than fit
_MIN_SAMPLE_BYTES = 3 * 2 * 512


@dataclass(frozen=True, kw_only=True)
class ShardRow:
    """One shard, as the index lists it."""

    name: str
    subset: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class VideoRow:
    """One written video. Its clips are in `shard`, in the order of the rows.

    `partial` says what is wrong with a video of which only the part before the damage was kept; None if it is whole.
    `sample_aspect_ratio` is width:height of a coded pixel.
    """

    video: str
    label: int
    subset: str
    group: str | None
    shard: str
    num_clips: int
    partial: str | None = None
    sample_aspect_ratio: str = "1:1"


@dataclass(frozen=True, kw_only=True)
class SkippedVideo:
    """A listed video that was not written, the stage at which it failed, and the reason.

    `subset` is None in sets of older versions, which do not record it.
    """

    video: str
    stage: str
    reason: str
    subset: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """Everything that is known about a set of shards without opening one.

    `event_density` is the share of stored events that are not zero. `skipped_sha256` is the checksum of skipped.jsonl,
    None in sets of older versions.
    """

    root: Path
    spec: DataSpec
    shards: tuple[ShardRow, ...]
    videos: tuple[VideoRow, ...]
    num_listed: int
    num_written: int
    num_skipped: int
    num_clips: int
    event_density: float
    skipped_sha256: str | None = None


def jsonl(rows: list[dict[str, Any]]) -> str:
    """Return rows as JSON lines, byte-identical for equal rows."""
    return "".join(canonical_json(row) + "\n" for row in rows)


def read_index(root: Path) -> DatasetIndex:
    """Read and check the index in the folder `root`.

    Raises ShardError if there is none, if it was cut or changed, or if this version cannot read its format.
    """
    path = root / INDEX_NAME
    if not path.is_file():
        raise ShardError(f"there is no {INDEX_NAME} in {root}", _explain_missing_index(root))
    try:
        value = unseal(path.read_bytes())
        videos = (root / VIDEOS_NAME).read_bytes()
        if sha256_of_bytes(videos) != value["videos"]["rows_sha256"]:
            path = root / VIDEOS_NAME
            raise ValueError("was changed after it was written")
    except ValueError as error:
        raise ShardError(f"{path}: {error}", _HOW_TO_REPAIR) from error
    except (OSError, KeyError, TypeError) as error:
        raise ShardError(f"the index of {root} cannot be read: {error}", _HOW_TO_REPAIR) from error
    return parse_index(root, value, videos)


def _explain_missing_index(root: Path) -> str:
    """What to do about a folder that is no finished set: finish it, or take one of the sets in it."""
    if (root / STATE_FOLDER).is_dir():
        return "`respike prepare` has not finished there: run it again to go on, or `respike index` to join its parts"
    if found := sorted(str(path.parent) for path in root.glob(f"*/{INDEX_NAME}")):
        return f"choose from {', '.join(found)}"
    return "give the folder that `respike prepare` wrote"


def parse_index(root: Path, value: Mapping[str, Any], videos: bytes | None) -> DatasetIndex:
    """Make the index from the unsealed `value` of dataset.json and the content of videos.jsonl.

    With `videos` None the index has no rows. Raises ShardError if a field is missing, if the index contradicts itself,
    or if this version cannot read its format.
    """
    try:
        if value["format_version"] not in READ_FORMATS:
            raise ShardError(
                f"{root} has shard format {value['format_version']}, this respike reads up to {FORMAT_VERSION}",
                "update respike, or prepare the data again",
            )
        spec = DataSpec(
            dataset=value["dataset"],
            split=value["split"],
            evaluation_subset=value["evaluation_subset"],
            classes=tuple(value["classes"]),
            settings=value["settings"],
            fingerprint=value["sha256"],
        )
        counts = value["videos"]
        index = DatasetIndex(
            root=root,
            spec=spec,
            shards=tuple(ShardRow(**row) for row in value["shards"]),
            videos=tuple(VideoRow(**row) for row in parse_jsonl(videos or b"")),
            num_listed=counts["listed"],
            num_written=counts["written"],
            num_skipped=counts["skipped"],
            num_clips=value["num_clips"],
            event_density=value["event_density"],
            skipped_sha256=counts.get("skipped_sha256"),
        )
        _check_facts(index)
        if videos is not None:
            _check_rows(index)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ShardError(f"the index of {root} is not valid: {error}", _HOW_TO_REPAIR) from error
    return index


def read_skipped(index: DatasetIndex) -> tuple[SkippedVideo, ...] | None:
    """Return the listed videos that are in no shard; None if skipped.jsonl was not kept with the shards.

    Raises ShardError if it was cut or changed.
    """
    if not index.num_skipped:
        return ()
    path = index.root / SKIPPED_NAME
    try:
        content = path.read_bytes()
        if index.skipped_sha256 not in (None, sha256_of_bytes(content)):
            raise ValueError("was changed after it was written")
        rows = tuple(SkippedVideo(**row) for row in parse_jsonl(content))
        if not all(isinstance(row.video, str) for row in rows):
            raise ValueError("the name of a video is not a string")
        if len(rows) != index.num_skipped:
            raise ValueError(f"has {len(rows)} rows, the index says {index.num_skipped}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ShardError(f"{path}: {error}", _HOW_TO_REPAIR) from error
    return rows


def parse_jsonl(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of JSON lines. Raises ValueError if one is not a JSON object."""
    # not splitlines(), which also cuts at line separators within names
    rows = [json.loads(line) for line in content.decode().split("\n") if line]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a row is not a JSON object")
    return rows


def _check_facts(index: DatasetIndex) -> None:
    """Raise ValueError if the index contradicts itself."""
    for shard in index.shards:
        match = SHARD_NAME.fullmatch(shard.name)
        # a name in a foreign index must not lead out of the folder
        if match is None or match[1] != shard.subset:
            raise ValueError(f"{shard.name!r} is not a name of a shard of {shard.subset}")
        if shard.num_samples * _MIN_SAMPLE_BYTES > shard.num_bytes:
            raise ValueError(f"{shard.num_samples} samples in {shard.num_bytes} bytes of {shard.name}")
    if len({shard.name for shard in index.shards}) < len(index.shards):
        raise ValueError("it lists a shard twice")
    if index.num_listed != index.num_written + index.num_skipped:
        raise ValueError(f"{index.num_listed} listed are not {index.num_written} written + {index.num_skipped} skipped")
    if index.num_clips != sum(shard.num_samples for shard in index.shards):
        raise ValueError(f"{index.num_clips} clips are not the sum of its shards")
    settings = index.spec.settings
    for name in ("stride", "clip_length", "threshold", "short_side"):
        if type(settings[name]) is not int or settings[name] < 1:
            raise ValueError(f"{name} is {settings[name]!r}")
    for name in ("eval_clips", "clips_per_video"):
        if name in settings and (type(settings[name]) is not int or settings[name] < 1):
            raise ValueError(f"{name} is {settings[name]!r}")
    if settings["color"] not in COLORS:
        raise ValueError(f"color is {settings['color']!r}")


def _check_rows(index: DatasetIndex) -> None:
    """Raise ValueError if the rows of videos and shards contradict each other."""
    if len(index.videos) != index.num_written:
        raise ValueError(f"{VIDEOS_NAME} has {len(index.videos)} rows, {index.num_written} videos were written")
    clips = dict.fromkeys((shard.name for shard in index.shards), 0)
    for video in index.videos:
        if not 0 <= video.label < len(index.spec.classes) or video.num_clips < 1:
            raise ValueError(f"label {video.label} and {video.num_clips} clips of {video.video!r}")
        if not video.shard.startswith(f"{video.subset}-"):
            raise ValueError(f"{video.video!r} belongs to {video.subset} but is in {video.shard}")
        if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", video.sample_aspect_ratio):
            raise ValueError(f"sample_aspect_ratio of {video.video!r} is {video.sample_aspect_ratio!r}")
        clips[video.shard] += video.num_clips
    for shard in index.shards:
        if clips[shard.name] != shard.num_samples:
            raise ValueError(f"{shard.num_samples} samples in {shard.name}, {clips[shard.name]} in {VIDEOS_NAME}")


_HOW_TO_REPAIR = (
    "`respike verify` says what is damaged; the same `respike prepare` run again keeps finished shards and writes the "
    "index again"
)
