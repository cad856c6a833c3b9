"""Verification of a set of shards against its index, and the repair that removes what is damaged."""

import itertools
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from respike.common.errors import RespikeError, ShardError
from respike.common.files import INDEX_NAME, seal, sha256_of_bytes, sha256_of_file, unseal
from respike.common.progress import SILENCE, Progress
from respike.data.executors import local
from respike.data.executors.base import Job, Report, run_serially
from respike.data.index import (
    CARD_NAME,
    MANIFEST_FOLDER,
    SKIPPED_NAME,
    STATE_FOLDER,
    VIDEOS_NAME,
    DatasetIndex,
    ShardRow,
    VideoRow,
    manifest_name,
    parse_index,
    parse_jsonl,
    read_index,
)
from respike.data.output import OutputState
from respike.data.shard import EVENTS_MEMBER, INFO_MEMBER, ShardReader, key_member, read_sample, sample_key
from respike.types import SUBSETS, EventClip

# one problem makes a shard bad; a few more show what kind of damage it is
_MAX_PROBLEMS_PER_SHARD = 3
# files that the dataset card, and so every hub, takes for shards
_SHARD_LIKE = re.compile(r"(?:train|val|test)-.*\.tar")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong: the name of the file in the folder, and the problem in one line.

    `is_unknown_shard`: the index does not list the file, but readers of `train-*.tar` would take it for a shard.
    """

    file: str
    problem: str
    is_unknown_shard: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What a verification found. Without faults the set is undamaged.

    `strays` are harmless files that the index does not list. The counts are those of the index, 0 if it cannot be read.
    `seconds` is the time it took. `dropped` are the files that `repair` removed.
    """

    out: Path
    faults: tuple[Fault, ...]
    strays: tuple[str, ...]
    num_shards: int
    num_clips: int
    num_bytes: int
    seconds: float
    dropped: tuple[str, ...] = ()


def verify(out: Path, *, quick: bool = False, num_workers: int = 1, progress: Progress = SILENCE) -> VerifyReport:
    """Compare everything that a prepare run wrote to the folder `out` with its index. Nothing is changed.

    Checks dataset.json against its own checksum, and videos.jsonl, skipped.jsonl and every shard against the checksums
    in it. Unless `quick`, also decodes every sample and compares it with its row of the index. With `num_workers` above
    1 the shards are checked in processes of their own.

    Damage is reported, not raised. Raises ShardError if `out` is not a folder of shards.
    """
    started = time.perf_counter()
    if not any((out / name).exists() for name in (INDEX_NAME, VIDEOS_NAME, STATE_FOLDER)):
        read_index(out)  # raises, with a hint that names sets in subfolders
    check = _IndexCheck(out)
    index = check.read_index()
    faults = check.faults
    if index is not None:
        check.check_skipped(index)
        faults += _check_shards(index, check.rows_by_shard(index), quick, num_workers, progress)
    unknown_shards, strays = _find_unknown_files(out, index)
    faults += [
        Fault(file=name, problem="a shard that the index does not list", is_unknown_shard=True)
        for name in unknown_shards
    ]
    return VerifyReport(
        out=out,
        faults=tuple(faults),
        strays=strays,
        num_shards=0 if index is None else len(index.shards),
        num_clips=0 if index is None else index.num_clips,
        num_bytes=0 if index is None else sum(shard.num_bytes for shard in index.shards),
        seconds=time.perf_counter() - started,
    )


def repair(out: Path, *, quick: bool = False, num_workers: int = 1, progress: Progress = SILENCE) -> VerifyReport:
    """Verify, then remove the damaged shards with their manifests, and the index if anything was wrong.

    The next prepare run with the same settings makes only those shards and the index again. Files that respike did not
    write are left. Arguments are those of `verify`.

    Raises RespikeError if a run is at work in `out`, or if the set was not prepared there: then there is nothing to
    make shards from.
    """
    if not (out / MANIFEST_FOLDER).is_dir():
        raise RespikeError(
            f"{out} holds no record of a prepare run, so its shards cannot be made again here",
            "verify without repair, and fetch the files that it names again",
        )
    with OutputState(out).lock():
        report = verify(out, quick=quick, num_workers=num_workers, progress=progress)
        damaged = {fault.file for fault in report.faults if not fault.is_unknown_shard}
        if not damaged:
            return report
        shards = sorted(name for name in damaged if name.endswith(".tar"))
        # the index first: it lists what is removed next
        (out / INDEX_NAME).unlink(missing_ok=True)
        for name in shards:
            (out / manifest_name(name)).unlink(missing_ok=True)
            (out / name).unlink(missing_ok=True)
    return replace(report, dropped=(*shards, INDEX_NAME))


class _IndexCheck:
    """Reads the index files of a folder and collects what is wrong with them."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._videos: bytes | None = None
        self._value: dict[str, Any] = {}
        self.faults: list[Fault] = []

    def read_index(self) -> DatasetIndex | None:
        """Return the index, without rows if videos.jsonl is damaged; None if dataset.json is damaged."""
        content = self._read(INDEX_NAME)
        if content is None:
            return None
        try:
            self._value = unseal(content)
            rest = {name: value for name, value in self._value.items() if name != "sha256"}
            if seal(rest, indent=1).encode() != content:
                raise ValueError("was changed after it was written")
            self._videos = self._read(VIDEOS_NAME, self._value["videos"]["rows_sha256"])
            return parse_index(self._out, self._value, self._videos)
        except ShardError as error:
            self._add_fault(INDEX_NAME, error.problem)
        except (ValueError, KeyError, TypeError) as error:
            self._add_fault(INDEX_NAME, str(error))
        return None

    def rows_by_shard(self, index: DatasetIndex) -> dict[str, tuple[VideoRow, ...]] | None:
        """Return the videos of each shard; None if videos.jsonl is damaged."""
        if self._videos is None:
            return None
        rows: dict[str, list[VideoRow]] = {shard.name: [] for shard in index.shards}
        for video in index.videos:
            rows[video.shard].append(video)
        return {name: tuple(videos) for name, videos in rows.items()}

    def check_skipped(self, index: DatasetIndex) -> None:
        """Check skipped.jsonl against its checksum and the counts of the index."""
        # sets of older versions have no checksum of it
        content = self._read(SKIPPED_NAME, self._value["videos"].get("skipped_sha256"))
        if content is None:
            return
        try:
            rows = parse_jsonl(content)
        except (ValueError, RecursionError) as error:
            self._add_fault(SKIPPED_NAME, f"not JSON lines: {error}")
            return
        if len(rows) != index.num_skipped:
            self._add_fault(SKIPPED_NAME, f"has {len(rows)} rows, the index says {index.num_skipped}")
        written = {video.video for video in index.videos}
        for row in rows:
            # sets of older versions do not record the subset
            if set(row) | {"subset"} != {"video", "subset", "stage", "reason"}:
                self._add_fault(
                    SKIPPED_NAME, f"a row holds {', '.join(row)} instead of video, subset, stage and reason"
                )
            elif row.get("subset") not in (*SUBSETS, None):
                self._add_fault(SKIPPED_NAME, f"{row['video']!r} has the unknown subset {row['subset']!r}")
            elif row["video"] in written:
                self._add_fault(SKIPPED_NAME, f"{row['video']!r} is skipped here, but written in {VIDEOS_NAME}")

    def _read(self, name: str, sha256: str | None = None) -> bytes | None:
        """Return the content of a file; None, with a fault, if it cannot be read or has another checksum."""
        try:
            content = (self._out / name).read_bytes()
        except FileNotFoundError:
            self._add_fault(name, "missing")
            return None
        except OSError as error:
            self._add_fault(name, f"cannot be read: {error.strerror or error}")
            return None
        if sha256 is not None and sha256_of_bytes(content) != sha256:
            self._add_fault(name, f"SHA-256 differs from {INDEX_NAME}: it was changed after it was written")
            return None
        return content

    def _add_fault(self, file: str, problem: str) -> None:
        self.faults.append(Fault(file=file, problem=problem))


def _find_unknown_files(out: Path, index: DatasetIndex | None) -> tuple[list[str], tuple[str, ...]]:
    """The files in the folder that the index does not list: those that look like shards, and the others."""
    if index is None:
        return [], ()
    known = {INDEX_NAME, VIDEOS_NAME, SKIPPED_NAME, CARD_NAME, STATE_FOLDER, *(shard.name for shard in index.shards)}
    names = sorted(path.name for path in out.iterdir() if path.name not in known)
    shard_like = [name for name in names if _SHARD_LIKE.fullmatch(name)]
    return shard_like, tuple(name for name in names if name not in shard_like)


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """One shard to check, with its row of the index and the rows of its videos (None if videos.jsonl is damaged)."""

    path: Path
    row: ShardRow
    videos: tuple[VideoRow, ...] | None
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    quick: bool

    def __str__(self) -> str:
        return self.row.name


def _check_shards(
    index: DatasetIndex,
    rows: dict[str, tuple[VideoRow, ...]] | None,
    quick: bool,
    num_workers: int,
    progress: Progress,
) -> Iterator[Fault]:
    checks = [
        ShardCheck(
            path=index.root / shard.name,
            row=shard,
            videos=None if rows is None else rows[shard.name],
            classes=index.spec.classes,
            settings=index.spec.settings,
            quick=quick,
        )
        for shard in index.shards
    ]
    problems: dict[int, tuple[str, ...]] = {}
    with progress.task("verify", total=index.num_clips, unit="clips") as task:

        def on_event(worker: int, num_samples: object) -> None:
            assert isinstance(num_samples, int)
            task.advance(num_samples)

        run = local.run if num_workers > 1 else run_serially
        for number, found in run(Job(function=check_shard), checks, num_workers, on_event):
            problems[number] = found
            task.advance(0, damaged=sum(map(bool, problems.values())))
    for number, found in sorted(problems.items()):
        yield from (Fault(file=checks[number].row.name, problem=problem) for problem in found)


def check_shard(check: ShardCheck, report: Report) -> tuple[str, ...]:
    """Return what is wrong with a shard, one line each; nothing if it is undamaged.

    Samples are decoded only if the bytes are those of the index, and not with `quick`. `report` is called with the
    number of samples that were checked since the last call.
    """
    num_done = 0
    problems: list[str] = []
    try:
        if problem := _check_bytes(check.path, check.row):
            problems.append(problem)
        elif not check.quick:
            for found in _check_samples(check):
                problems += found[:1]
                num_done += 1
                report(1)
                if len(problems) == _MAX_PROBLEMS_PER_SHARD:
                    break
    except ShardError as error:
        # the fault names the shard already
        problems.append(error.problem.removeprefix(f"{check.path} ").removeprefix(f"{check.row.name} "))
    except OSError as error:
        problems.append(f"cannot be read: {error.strerror or error}")
    report(check.row.num_samples - num_done)
    return tuple(problems)


def _check_bytes(path: Path, row: ShardRow) -> str | None:
    if not path.is_file():
        return "missing"
    if (num_bytes := path.stat().st_size) != row.num_bytes:
        return f"holds {num_bytes:,} bytes, the index says {row.num_bytes:,}"
    if sha256_of_file(path) != row.sha256:
        return "SHA-256 differs from the index: its bytes were changed"
    return None


def _check_samples(check: ShardCheck) -> Iterator[list[str]]:
    """Yield what is wrong with each sample. Raises ShardError if the shard cannot be split into samples."""
    reader = ShardReader(check.path)
    if len(reader) != check.row.num_samples:
        raise ShardError(f"holds {len(reader)} samples, the index says {check.row.num_samples}")
    expected: Iterator[tuple[VideoRow, int] | None]
    if check.videos is None:
        expected = itertools.repeat(None, len(reader))
    else:
        expected = ((video, clip) for video in check.videos for clip in range(video.num_clips))
    for position, row in enumerate(expected):
        try:
            clip = read_sample(reader, position, check.settings)
        except ShardError as error:
            yield [error.problem]
        else:
            found = _compare_sample(clip, reader.member_sizes(position), check, row)
            yield [f"sample {clip.key}: {problem}" for problem in found]


def _compare_sample(
    clip: EventClip, members: Collection[str], check: ShardCheck, row: tuple[VideoRow, int] | None
) -> Iterator[str]:
    """Yield the contradictions between a decoded sample and the index."""
    known = {*map(key_member, range(len(clip.keys))), EVENTS_MEMBER, INFO_MEMBER}
    if unknown := sorted(set(members) - known):
        yield f"it has an unknown member {unknown[0]}"
    info, length = clip.info, check.settings["clip_length"]
    if not len(info.frame_indices) == len(info.times_seconds) == length:
        yield f"{len(info.frame_indices)} frames and {len(info.times_seconds)} times for a clip of {length}"
    if not (type(info.num_padded) is int and 0 <= info.num_padded < length):
        yield f"{info.num_padded} of {length} frames are padding"
    if row is None:
        return
    video, number = row
    # name, value in the sample, value in the index
    comparisons = (
        ("key", clip.key, sample_key(video.video, number)),
        ("class_name", info.class_name, check.classes[video.label]),
        ("clip_index", info.clip_index, number),
        ("video", info.video, video.video),
        ("label", info.label, video.label),
        ("subset", info.subset, video.subset),
        ("group", info.group, video.group),
        ("partial", info.partial, video.partial is not None),
        ("sample_aspect_ratio", info.sample_aspect_ratio, video.sample_aspect_ratio),
    )
    for name, found, expected in comparisons:
        if found != expected:
            yield f"{name} is {found!r}, the index says {expected!r}"
