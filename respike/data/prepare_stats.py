"""Prepare statistics: the speed of a run, the videos in progress, the slowest videos."""

import heapq
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from respike.common.progress import Task
from respike.data.shard_worker import ProgressEvent

NUM_SLOWEST = 5


@dataclass(frozen=True, kw_only=True)
class PrepareSpeed:
    """How fast a run was: counts of what it decoded, `video_seconds` of playing time, and `seconds` of wall time.

    `slowest` are the videos that took a worker longest, each with its seconds of work, slowest first.
    """

    num_videos: int = 0
    num_frames: int = 0
    video_seconds: float = 0.0
    seconds: float = 0.0
    slowest: tuple[tuple[str, float], ...] = ()

    @property
    def videos_per_second(self) -> float:
        """Videos per second of wall time, skipped ones included."""
        return self.num_videos / max(1e-3, self.seconds)

    @property
    def frames_per_second(self) -> float:
        """Decoded frames per second of wall time."""
        return self.num_frames / max(1e-3, self.seconds)

    @property
    def times_real_time(self) -> float:
        """Seconds of playing time per second of wall time."""
        return self.video_seconds / max(1e-3, self.seconds)


class PrepareStats:
    """Counts the progress events of a run and shows them on a progress task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._started = time.monotonic()
        # by shard
        self._num_done: Counter[str] = Counter()
        self._num_skipped: Counter[str] = Counter()
        self._num_videos = self._num_frames = 0
        self._video_seconds = 0.0
        self._slowest: list[tuple[float, str]] = []
        self._shard_of_worker: dict[int, str] = {}

    def add(self, worker: int, event: object) -> None:
        """Count an event of `build_shard` that the worker of this number sent."""
        assert isinstance(event, ProgressEvent)
        self._num_frames += event.num_frames
        advance = 0
        if event.kind == "start":
            # a second attempt does all videos of the shard again
            advance = -self._num_done.pop(event.shard, 0)
            self._num_skipped.pop(event.shard, None)
        elif event.kind in ("done", "skipped"):
            advance = 1
            self._num_done[event.shard] += 1
            self._num_skipped[event.shard] += event.kind == "skipped"
            self._num_videos += 1
            self._video_seconds += event.video_seconds
            self._update_slowest(event.video, event.work_seconds)
        self._shard_of_worker[worker] = event.shard
        what = event.video or ("writing" if event.kind == "write" else "starting")
        self._task.at(worker, f"{event.shard}: {what}")
        self._task.advance(advance, **self._facts())

    def finish_shard(self, name: str, num_videos: int, num_skipped: int) -> None:
        """Count all videos of a finished shard, also those that were not decoded again."""
        for worker, shard in self._shard_of_worker.items():
            if shard == name:
                # until it starts another shard, if one is left
                self._task.at(worker, "idle")
        self._num_skipped[name] = num_skipped
        self._task.advance(num_videos - self._num_done[name], **self._facts())
        self._num_done[name] = num_videos

    def speed(self) -> PrepareSpeed:
        """Return the speed so far."""
        return PrepareSpeed(
            num_videos=self._num_videos,
            num_frames=self._num_frames,
            video_seconds=self._video_seconds,
            seconds=time.monotonic() - self._started,
            slowest=tuple((video, round(seconds, 3)) for seconds, video in sorted(self._slowest, reverse=True)),
        )

    def _update_slowest(self, video: str, work_seconds: float) -> None:
        # a video that comes twice, because of a second attempt, counts with its longer time
        self._slowest = [entry for entry in self._slowest if entry[1] != video or entry[0] > work_seconds]
        if all(name != video for _, name in self._slowest):
            self._slowest = heapq.nlargest(NUM_SLOWEST, [*self._slowest, (work_seconds, video)])

    def _facts(self) -> dict[str, Any]:
        seconds = max(1e-3, time.monotonic() - self._started)
        return {
            "skipped": sum(self._num_skipped.values()),
            "frames/s": f"{self._num_frames / seconds:.0f}",
            "× real time": f"{self._video_seconds / seconds:.1f}",
        }
