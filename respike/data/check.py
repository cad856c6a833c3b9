"""Check: the videos of a listing looked through before anything is written: present, missing, unreadable."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from respike.data.build import SkippedVideo
from respike.data.decode import Decoding, check_header
from respike.data.engines import local
from respike.data.index import jsonl
from respike.errors import UnreadableVideoError
from respike.files import write_atomically
from respike.progress import SILENCE, Progress
from respike.sample import VideoListing, VideoRef

MISSING = "missing"
# enough videos to be worth a task, few enough that every worker has some
_VIDEOS_PER_TASK = 32
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
    """A few videos for one worker; decoded whole with `full`."""

    videos: tuple[VideoRef, ...]
    full: bool

    def __str__(self) -> str:
        return f"{self.videos[0].video_id} and {len(self.videos) - 1} more"


def check(
    listing: VideoListing, *, full: bool = False, num_workers: int = 1, progress: Progress = SILENCE
) -> CheckReport:
    """Look at every video of a listing: that it is there, that it opens and, with `full`, that all of it decodes.

    Nothing is written. Only a full look finds a video whose header is whole and whose data are not.
    """
    started = time.perf_counter()
    faults = [
        SkippedVideo(video=video.video_id, stage=MISSING, reason="listed, but not on disk")
        for video in listing.videos
        if video.path is None
    ]
    present = [video for video in listing.videos if video.path is not None]
    faults += _look(present, full, num_workers, progress, len(faults))
    places = {video.video_id: number for number, video in enumerate(listing.videos)}
    faults.sort(key=lambda fault: places[fault.video])
    missing = sum(fault.stage == MISSING for fault in faults)
    return CheckReport(
        listed=len(listing.videos),
        present=len(listing.videos) - missing,
        missing=missing,
        unreadable=len(faults) - missing,
        classes=_count(listing, faults),
        faults=tuple(faults),
        seconds=time.perf_counter() - started,
    )


def write_report(report: CheckReport, path: Path) -> None:
    """Write the faults as JSON lines of video, stage and reason, as `skipped.jsonl` has them."""
    write_atomically(path, jsonl([asdict(fault) for fault in report.faults]))


def _look(
    videos: Sequence[VideoRef], full: bool, num_workers: int, progress: Progress, num_missing: int
) -> list[SkippedVideo]:
    tasks = [
        CheckTask(videos=tuple(videos[first : first + _VIDEOS_PER_TASK]), full=full)
        for first in range(0, len(videos), _VIDEOS_PER_TASK)
    ]
    found: list[SkippedVideo] = []
    with progress.task("check", total=len(videos), unit="videos") as task:
        task.advance(0, missing=num_missing)
        for _, faults in local.run(check_videos, tasks, num_workers, task.advance):
            found += faults
            task.advance(0, unreadable=len(found))
    return found


def check_videos(task: CheckTask, report: Callable[[int], None]) -> list[SkippedVideo]:
    """The videos of a task that cannot be used; `report(1)` is called after each. This is what a worker runs."""
    faults = []
    for video in task.videos:
        try:
            _check_video(video, task.full)
        except UnreadableVideoError as error:
            faults.append(SkippedVideo(video=video.video_id, stage=error.stage, reason=error.reason))
        report(1)
    return faults


def _check_video(video: VideoRef, full: bool) -> None:
    assert video.path is not None
    if not full:
        check_header(video.path)
        return
    decoding = Decoding(video.path, color="ycc", short_side=_LEAST_SIDE)
    for _ in decoding.frames(wanted=()):
        pass
    if decoding.num_frames == 0:
        raise UnreadableVideoError("decode", "no frame could be decoded")


def _count(listing: VideoListing, faults: Sequence[SkippedVideo]) -> tuple[ClassCount, ...]:
    stages = {fault.video: fault.stage for fault in faults}
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
