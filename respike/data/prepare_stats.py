"""Prepare statistics: the speed of a run, the videos under way, the slowest videos."""

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
    """How fast videos went: counts of what this run decoded, and the wall time in seconds that it took.

    `slowest` are the videos that took a worker longest, with their seconds, slowest first.
    """

    num_videos: int = 0
    num_frames: int = 0
    video_seconds: float = 0.0
    seconds: float = 0.0
    slowest: tuple[tuple[str, float], ...] = ()

    @property
    def videos_per_second(self) -> float:
        """Videos gone through a second, read or not."""
        return self.num_videos / max(1e-3, self.seconds)

    @property
    def frames_per_second(self) -> float:
        """Frames decoded a second."""
        return self.num_frames / max(1e-3, self.seconds)

    @property
    def times_real_time(self) -> float:
        """Seconds of video gone through a second."""
        return self.video_seconds / max(1e-3, self.seconds)


class PrepareStats:
    """Counts notes and shows them on a progress Task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._started = time.monotonic()
        self._done: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._num_videos = self._num_frames = 0
        self._video_seconds = 0.0
        self._slowest: list[tuple[float, str]] = []
        self._at: dict[int, str] = {}

    def hear(self, worker: int, note: object) -> None:
        """Take a note of `build_shard` into account."""
        assert isinstance(note, ProgressEvent)
        self._num_frames += note.num_frames
        advance = 0
        if note.kind == "begin":
            # a second attempt does all again
            advance = -self._done.pop(note.shard, 0)
            self._skipped.pop(note.shard, None)
        elif note.kind in ("done", "skipped"):
            advance = 1
            self._done[note.shard] += 1
            self._skipped[note.shard] += note.kind == "skipped"
            self._num_videos += 1
            self._video_seconds += note.seconds
            self._remember(note)
        self._at[worker] = note.shard
        self._task.at(worker, f"{note.shard}: {note.video or ('writing' if note.kind == 'write' else 'starting')}")
        self._task.advance(advance, **self._facts())

    def finish_shard(self, name: str, num_videos: int, num_skipped: int) -> None:
        """Count the videos of a shard that is done, whether or not they were looked at again."""
        for worker, shard in self._at.items():
            if shard == name:
                # until it begins another one, if there is one left
                self._task.at(worker, "idle")
        self._skipped[name] = num_skipped
        self._task.advance(num_videos - self._done[name], **self._facts())
        self._done[name] = num_videos

    def speed(self) -> PrepareSpeed:
        """The speed so far."""
        return PrepareSpeed(
            num_videos=self._num_videos,
            num_frames=self._num_frames,
            video_seconds=self._video_seconds,
            seconds=time.monotonic() - self._started,
            slowest=tuple((video, round(seconds, 3)) for seconds, video in sorted(self._slowest, reverse=True)),
        )

    def _remember(self, note: ProgressEvent) -> None:
        # a video met twice, as by a second attempt, counts with its longer time
        self._slowest = [entry for entry in self._slowest if entry[1] != note.video or entry[0] > note.spent_seconds]
        if not any(video == note.video for _, video in self._slowest):
            self._slowest = heapq.nlargest(NUM_SLOWEST, [*self._slowest, (note.spent_seconds, note.video)])

    def _facts(self) -> dict[str, Any]:
        seconds = max(1e-3, time.monotonic() - self._started)
        return {
            "skipped": sum(self._skipped.values()),
            "frames/s": f"{self._num_frames / seconds:.0f}",
            "× real time": f"{self._video_seconds / seconds:.1f}",
        }
