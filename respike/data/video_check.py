"""Video check: which videos of a listing are missing or unreadable."""

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
from respike.data.executors.base import Job, Report, WorkerDeath, retry_same_item
from respike.data.index import SkippedVideo, jsonl
from respike.data.prepare_config import DEFAULT_VIDEO_TIMEOUT_SECONDS
from respike.data.shard_worker import raise_if_crashed
from respike.data.video_reader import Decoding, check_header, probe
from respike.types import VideoListing, VideoRef

MISSING = "missing"
# enough videos to be worth a task, few enough that every worker gets some
_NUM_VIDEOS_PER_TASK = 32
_SECONDS_BETWEEN_EVENTS = 1.0
# frames are decoded only to find faults, so small ones do
_SHORT_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """The numbers of listed, missing and unreadable videos of one class."""

    name: str
    listed: int
    missing: int
    unreadable: int


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a check found. Always: `listed` = `present` + `missing`; `unreadable` counts some of the present videos.

    `faults` are the videos that `respike prepare` would skip, in the order of the listing. `classes` are in label
    order. `seconds` is the time that the check took.
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
    """A few videos for one worker, decoded completely if `full`. `deaths` are those of workers in earlier attempts."""

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
    """Check every video of a listing: that it exists, that it opens and, with `full`, that it decodes to its end.

    Nothing is written. Only a full check finds a video with an intact header and damaged data. A video that crashes its
    worker, or shows no progress for `video_timeout_seconds` (None: no limit), counts as unreadable. The videos are
    checked by `num_workers` processes.
    """
    started = time.perf_counter()
    found = [
        SkippedVideo(video=video.video_id, subset=video.subset, stage=MISSING, reason="listed, but not on disk")
        for video in listing.videos
        if video.path is None
    ]
    present = [video for video in listing.videos if video.path is not None]
    found += _check_present(present, full, num_workers, video_timeout_seconds, progress, len(found))
    order = {video.video_id: number for number, video in enumerate(listing.videos)}
    found.sort(key=lambda fault: order[fault.video])
    missing = sum(fault.stage == MISSING for fault in found)
    return CheckReport(
        listed=len(listing.videos),
        present=len(listing.videos) - missing,
        missing=missing,
        unreadable=len(found) - missing,
        classes=_count_by_class(listing, found),
        faults=tuple(found),
        seconds=time.perf_counter() - started,
    )


def write_report(report: CheckReport, path: Path) -> None:
    """Write the faults as JSON lines with video, subset, stage and reason, in the form of skipped.jsonl."""
    write_atomically(path, jsonl([asdict(fault) for fault in report.faults]))


def _check_present(
    videos: Sequence[VideoRef],
    full: bool,
    num_workers: int,
    timeout_seconds: float | None,
    progress: Progress,
    num_missing: int,
) -> list[SkippedVideo]:
    tasks = [
        CheckTask(videos=tuple(videos[first : first + _NUM_VIDEOS_PER_TASK]), full=full)
        for first in range(0, len(videos), _NUM_VIDEOS_PER_TASK)
    ]
    found: list[SkippedVideo] = []
    with progress.task("check", total=len(videos), unit="videos") as task:
        task.advance(0, missing=num_missing)
        started: set[object] = set()

        def on_event(worker: int, video: object) -> None:
            # a video is reported again while it is decoded, and in a second attempt
            if video not in started:
                started.add(video)
                task.advance(1)

        job = Job(function=check_videos, retry=retry_videos, timeout_seconds=timeout_seconds)
        for _, unreadable in local.run(job, tasks, num_workers, on_event):
            found += unreadable
            task.advance(0, unreadable=len(found))
    return found


def retry_videos(task: CheckTask, deaths: Sequence[WorkerDeath]) -> CheckTask:
    """Return the task to try after workers died at it. Raises RespikeError if they died several times at no video."""
    retry_same_item(task, [death for death in deaths if death.last_event is None])
    return replace(task, deaths=tuple(deaths))


def check_videos(task: CheckTask, report: Report) -> list[SkippedVideo]:
    """Return the videos of a task that cannot be used. `report` is called with the id of the current video.

    This is what a worker runs.
    """
    found = []
    for video in task.videos:
        try:
            raise_if_crashed([death for death in task.deaths if death.last_event == video.video_id])
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
    last_event = time.monotonic()

    def on_frames(num_frames: int) -> None:
        nonlocal last_event
        if time.monotonic() - last_event > _SECONDS_BETWEEN_EVENTS:
            last_event = time.monotonic()
            report(video.video_id)

    if (fault := probe(video.path, on_frames=on_frames).fault) is not None:
        raise UnreadableVideoError("decode", fault)
    decoding = Decoding(video.path, color="ycc", short_side=_SHORT_SIDE, on_frames=on_frames)
    for _ in decoding.frames(wanted=()):
        pass
    if decoding.num_frames == 0:
        raise UnreadableVideoError("decode", "no frame could be decoded")


def _count_by_class(listing: VideoListing, found: Sequence[SkippedVideo]) -> tuple[ClassCount, ...]:
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
