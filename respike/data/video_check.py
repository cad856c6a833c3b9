"""Video check: which videos of a listing are present and readable."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from respike.common import failpoints
from respike.common.errors import UnreadableVideoError
from respike.common.files import write_atomically
from respike.common.progress import SILENCE, Progress
from respike.common.text import name_some
from respike.data.executors import local
from respike.data.executors.base import Job, Report, WorkerDeath, try_again
from respike.data.index import SkippedVideo, jsonl
from respike.data.shard_worker import DEFAULT_VIDEO_TIMEOUT_SECONDS, raise_if_crashed_before
from respike.data.video_reader import Decoding, check_header, probe
from respike.types import VideoListing, VideoRef

MISSING = "missing"
# enough videos to be worth a task, few enough that every worker has some
_VIDEOS_PER_TASK = 32
_SECONDS_BETWEEN_NOTES = 1.0
# frames are decoded for their faults alone
_LEAST_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How many videos of one class are listed, and how many of these cannot be used."""

    name: str
    listed: int
    missing: int
    unreadable: int


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a look through a listing found: `listed` = `present` + `missing`, and `unreadable` are some of the present.

    `faults` are the videos that `respike prepare` would skip, in the order of the listing; `classes` stand in label
    order.
    """

    listed: int
    present: int
    missing: int
    unreadable: int
    classes: tuple[ClassCount, ...]
    faults: tuple[SkippedVideo, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """A few videos for one worker; decoded whole with `full`. `deaths` are those of workers that had it before."""

    videos: tuple[VideoRef, ...]
    full: bool
    deaths: tuple[WorkerDeath, ...] = ()

    def __str__(self) -> str:
        return name_some((video.video_id for video in self.videos), most=1)


def check(
    listing: VideoListing,
    *,
    full: bool = False,
    num_workers: int = 1,
    video_timeout_seconds: float | None = DEFAULT_VIDEO_TIMEOUT_SECONDS,
    progress: Progress = SILENCE,
) -> CheckReport:
    """Look at every video of a listing: that it is there, that it opens and, with `full`, that all of it decodes.

    Nothing is written. Only a full look finds a video whose header is whole and whose data are not. A video that kills
    its worker, or gives no sign for `video_timeout_seconds` (None: for ever), is unreadable.
    """
    started = time.perf_counter()
    found = [
        SkippedVideo(video=video.video_id, subset=video.subset, stage=MISSING, reason="listed, but not on disk")
        for video in listing.videos
        if video.path is None
    ]
    present = [video for video in listing.videos if video.path is not None]
    found += _look(present, full, num_workers, video_timeout_seconds, progress, len(found))
    places = {video.video_id: number for number, video in enumerate(listing.videos)}
    found.sort(key=lambda fault: places[fault.video])
    missing = sum(fault.stage == MISSING for fault in found)
    return CheckReport(
        listed=len(listing.videos),
        present=len(listing.videos) - missing,
        missing=missing,
        unreadable=len(found) - missing,
        classes=_count(listing, found),
        faults=tuple(found),
        seconds=time.perf_counter() - started,
    )


def write_report(report: CheckReport, path: Path) -> None:
    """Write the faults as JSON lines of video, subset, stage and reason, as `skipped.jsonl` has them."""
    write_atomically(path, jsonl([asdict(fault) for fault in report.faults]))


def _look(
    videos: Sequence[VideoRef],
    full: bool,
    num_workers: int,
    deadline_seconds: float | None,
    progress: Progress,
    num_missing: int,
) -> list[SkippedVideo]:
    tasks = [
        CheckTask(videos=tuple(videos[first : first + _VIDEOS_PER_TASK]), full=full)
        for first in range(0, len(videos), _VIDEOS_PER_TASK)
    ]
    found: list[SkippedVideo] = []
    with progress.task("check", total=len(videos), unit="videos") as task:
        task.advance(0, missing=num_missing)
        begun: set[object] = set()

        def watch(worker: int, note: object) -> None:
            # a video may be begun again after a death, and tells of itself while it lasts
            if note not in begun:
                begun.add(note)
                task.advance(1)

        job = Job(function=check_videos, recover=after_deaths, deadline_seconds=deadline_seconds)
        for _, unreadable in local.run(job, tasks, num_workers, watch):
            found += unreadable
            task.advance(0, unreadable=len(found))
    return found


def after_deaths(task: CheckTask, deaths: Sequence[WorkerDeath]) -> CheckTask:
    """What to try after workers died at a task. Raises RespikeError where they die at no video."""
    try_again(task, [death for death in deaths if death.note is None])
    return replace(task, deaths=tuple(deaths))


def check_videos(task: CheckTask, report: Report) -> list[SkippedVideo]:
    """The videos of a task that cannot be used; `report` hears the video it is at. This is what a worker runs."""
    found = []
    for video in task.videos:
        try:
            raise_if_crashed_before([death for death in task.deaths if death.note == video.video_id])
            report(video.video_id)
            failpoints.reach("decode", video.video_id)
            _check_video(video, task.full, report)
        except UnreadableVideoError as error:
            found.append(
                SkippedVideo(video=video.video_id, subset=video.subset, stage=error.stage, reason=error.reason)
            )
    return found


def _check_video(video: VideoRef, full: bool, report: Report) -> None:
    assert video.path is not None
    if not full:
        check_header(video.path)
        return
    told = time.monotonic()

    def beat(num_frames: int) -> None:
        nonlocal told
        if time.monotonic() - told > _SECONDS_BETWEEN_NOTES:
            told = time.monotonic()
            report(video.video_id)

    if (fault := probe(video.path, beat=beat).fault) is not None:
        raise UnreadableVideoError("decode", fault)
    decoding = Decoding(video.path, color="ycc", short_side=_LEAST_SIDE, beat=beat)
    for _ in decoding.frames(wanted=()):
        pass
    if decoding.num_frames == 0:
        raise UnreadableVideoError("decode", "no frame could be decoded")


def _count(listing: VideoListing, found: Sequence[SkippedVideo]) -> tuple[ClassCount, ...]:
    stages = {fault.video: fault.stage for fault in found}
    listed: Counter[int] = Counter()
    missing: Counter[int] = Counter()
    unreadable: Counter[int] = Counter()
    for video in listing.videos:
        listed[video.label] += 1
        if (stage := stages.get(video.video_id)) is not None:
            (missing if stage == MISSING else unreadable)[video.label] += 1
    return tuple(
        ClassCount(name=name, listed=listed[label], missing=missing[label], unreadable=unreadable[label])
        for label, name in enumerate(listing.classes)
    )
