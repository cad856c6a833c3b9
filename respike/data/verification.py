"""Verification: shards against their index; repair drops what is damaged."""

import itertools
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from respike.common.errors import RespikeError, ShardError
from respike.common.files import seal, sha256_of_bytes, sha256_of_file, unseal
from respike.common.progress import SILENCE, Progress
from respike.data import index as index_files
from respike.data.executors import local
from respike.data.executors.base import Job, Report, Watch
from respike.data.index import INDEX_NAME, SKIPPED_NAME, VIDEOS_NAME, DatasetIndex, ShardRow, VideoRow
from respike.data.output import CARD_NAME, OutputState
from respike.data.plan import STATE_FOLDER
from respike.data.shard import EVENTS_MEMBER, INFO_MEMBER, ShardReader, key_member, read_sample, sample_key
from respike.types import SUBSETS, EventClip

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


# what the dataset card, and so every hub, takes for shards
_SHARD_LIKE = re.compile(r"(?:train|val|test)-.*\.tar")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong: the file, by its name in the folder, and what is wrong with it.

    `is_stranger`: a file that the index does not know, and that readers of `train-*.tar` would take for a shard.
    """

    file: str
    problem: str
    is_stranger: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was looked at and found; without faults the set is whole.

    `strays` are files that the index does not know and that harm nothing. Counts are those of the index, 0 where it
    cannot be read; `seconds` is how long it took. `dropped` names what `repair` removed.
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
    """Hold all that `respike prepare` wrote to `out` against its index.

    The index against its own checksum; videos.jsonl, skipped.jsonl and every shard against the checksums in it; then
    every sample is decoded and held against its row, unless `quick`. Damage raises nothing, it is what the report is
    about. Raises RespikeError where `out` is no folder of shards.
    """
    started = time.perf_counter()
    if not any((out / name).exists() for name in (INDEX_NAME, VIDEOS_NAME, STATE_FOLDER)):
        index_files.read_index(out)  # raises, and names the sets that lie within
    looking = _Looking(out)
    index = looking.read_index()
    if index is not None:
        looking.check_skipped(index)
        looking.faults += _check_shards(index, looking.rows(index), quick, num_workers, progress)
    strangers, strays = _unknown(out, index)
    told = [Fault(file=name, problem="a shard that the index does not know", is_stranger=True) for name in strangers]
    return VerifyReport(
        out=out,
        faults=(*looking.faults, *told),
        strays=strays,
        num_shards=0 if index is None else len(index.shards),
        num_clips=0 if index is None else index.num_clips,
        num_bytes=0 if index is None else sum(shard.num_bytes for shard in index.shards),
        seconds=time.perf_counter() - started,
    )


def repair(out: Path, *, quick: bool = False, num_workers: int = 1, progress: Progress = SILENCE) -> VerifyReport:
    """Verify, then drop the damaged shards with their finished-marks, and the index if anything of it all was wrong.

    The next `respike prepare` with the same settings makes just those shards again, and the index; the rest is kept.
    Files that respike did not write are left. Raises RespikeError where a run is at work in `out`, and where the set
    was not prepared there: then there is nothing to make shards from.
    """
    state = out / STATE_FOLDER
    if not (state / "done").is_dir():
        raise RespikeError(
            f"{out} holds no record of a run, so nothing in it can be made again",
            "run `respike verify` without --repair and fetch the files that it names once more",
        )
    with OutputState(out).lock():
        report = verify(out, quick=quick, num_workers=num_workers, progress=progress)
        dropped = _drop(out, [fault.file for fault in report.faults if not fault.is_stranger])
    return VerifyReport(**{**vars(report), "dropped": dropped})


def _drop(out: Path, files: list[str]) -> tuple[str, ...]:
    if not files:
        return ()
    shards = sorted({name for name in files if name.endswith(".tar")})
    # the index first: it promises what is about to go
    (out / INDEX_NAME).unlink(missing_ok=True)
    for name in shards:
        (out / STATE_FOLDER / "done" / f"{name}.json").unlink(missing_ok=True)
        (out / name).unlink(missing_ok=True)
    return (*shards, INDEX_NAME)


class _Looking:
    """The index files of one folder as they are looked through, and what was wrong with them."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._videos: bytes | None = None
        self._value: dict[str, Any] = {}
        self.faults: list[Fault] = []

    def read_index(self) -> DatasetIndex | None:
        """The index, without rows where videos.jsonl is damaged; None where dataset.json is."""
        content = self._read(INDEX_NAME)
        if content is None:
            return None
        try:
            self._value = unseal(content)
            rest = {name: value for name, value in self._value.items() if name != "sha256"}
            if seal(rest, indent=1).encode() != content:
                raise ValueError("was changed after it was written")
            self._videos = self._check_text(VIDEOS_NAME, self._value["videos"]["rows_sha256"])
            return index_files.parse_index(self._out, self._value, self._videos)
        except ShardError as error:
            self._fault(INDEX_NAME, error.problem)
        except (ValueError, KeyError, TypeError) as error:
            self._fault(INDEX_NAME, str(error))
        return None

    def rows(self, index: DatasetIndex) -> dict[str, tuple[VideoRow, ...]] | None:
        """The videos of each shard, None where videos.jsonl is damaged."""
        if self._videos is None:
            return None
        rows: dict[str, list[VideoRow]] = {shard.name: [] for shard in index.shards}
        for video in index.videos:
            rows[video.shard].append(video)
        return {name: tuple(videos) for name, videos in rows.items()}

    def check_skipped(self, index: DatasetIndex) -> None:
        """Hold skipped.jsonl against its checksum and the counts."""
        # sets of earlier days lack the checksum
        content = self._check_text(SKIPPED_NAME, self._value["videos"].get("skipped_sha256"))
        if content is None:
            return
        try:
            rows = index_files.parse_jsonl(content)
        except (ValueError, RecursionError) as error:
            self._fault(SKIPPED_NAME, f"no JSON lines: {error}")
            return
        if len(rows) != index.num_skipped:
            self._fault(SKIPPED_NAME, f"has {len(rows)} rows, the index says {index.num_skipped}")
        written = {video.video for video in index.videos}
        for row in rows:
            # sets of earlier days lack the subset
            if set(row) | {"subset"} != {"video", "subset", "stage", "reason"}:
                self._fault(SKIPPED_NAME, f"a row holds {', '.join(row)}, not video, subset, stage and reason")
            elif row.get("subset") not in (*SUBSETS, None):
                self._fault(SKIPPED_NAME, f"{row['video']!r} is said to be of subset {row['subset']!r}")
            elif row["video"] in written:
                self._fault(SKIPPED_NAME, f"{row['video']!r} was skipped, and written by {VIDEOS_NAME}")

    def _check_text(self, name: str, sha256: str | None) -> bytes | None:
        """The content of a file if it has this checksum (None: any)."""
        content = self._read(name)
        if content is not None and sha256 is not None and sha256_of_bytes(content) != sha256:
            self._fault(name, f"SHA-256 differs from {INDEX_NAME}: it was changed after it was written")
            return None
        return content

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._out / name).read_bytes()
        except FileNotFoundError:
            self._fault(name, "missing")
        except OSError as error:
            self._fault(name, f"cannot be read: {error.strerror or error}")
        return None

    def _fault(self, file: str, problem: str) -> None:
        self.faults.append(Fault(file=file, problem=problem))


def _check_shards(
    index: DatasetIndex,
    rows: dict[str, tuple[VideoRow, ...]] | None,
    quick: bool,
    num_workers: int,
    progress: Progress,
) -> Iterator[Fault]:
    tasks = [
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
    found: dict[int, tuple[str, ...]] = {}
    with progress.task("verify", total=index.num_clips, unit="clips") as task:

        def watch(worker: int, note: object) -> None:
            assert isinstance(note, int)
            task.advance(note)

        for number, problems in _run(tasks, num_workers, watch):
            found[number] = problems
            task.advance(0, damaged=sum(map(bool, found.values())))
    for number, problems in sorted(found.items()):
        yield from (Fault(file=tasks[number].row.name, problem=problem) for problem in problems)


def _run(tasks: list[ShardCheck], num_workers: int, watch: Watch) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Check the shards: in processes, or in this one if that is all there is to be."""
    if num_workers > 1:
        yield from local.run(Job(function=check_shard), tasks, num_workers, watch)
        return
    for number, task in enumerate(tasks):
        yield number, check_shard(task, partial(watch, 0))


def _unknown(out: Path, index: DatasetIndex | None) -> tuple[list[str], tuple[str, ...]]:
    """Files in the folder that the index does not know: those that look like shards, and the others."""
    if index is None:
        return [], ()
    known = {INDEX_NAME, VIDEOS_NAME, SKIPPED_NAME, CARD_NAME, STATE_FOLDER, *(shard.name for shard in index.shards)}
    names = sorted(path.name for path in out.iterdir() if path.name not in known)
    alike = [name for name in names if _SHARD_LIKE.fullmatch(name)]
    return alike, tuple(name for name in names if name not in alike)
