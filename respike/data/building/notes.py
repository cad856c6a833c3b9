"""Notes: what a worker says of itself while it builds a shard, at each video and now and then in between."""

import time
from dataclasses import dataclass
from typing import Literal

from respike.data.engines.base import Report

_SECONDS_BETWEEN_NOTES = 0.5


@dataclass(frozen=True, kw_only=True)
class VideoNote:
    """What a worker says while it builds a shard.

    `begin` that it starts the shard, maybe again; `video` that it is at that video, with `num_frames` decoded since the
    last note; `done` and `skipped` that it is through with it, after `spent_seconds` of work on `seconds` of video;
    `write` that all that is left is to write, however long the disk takes.
    """

    kind: Literal["begin", "video", "done", "skipped", "write"]
    shard: str
    video: str = ""
    num_frames: int = 0
    spent_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def untimed(self) -> bool:
        """Whether the engine's deadline does not run until the next note."""
        return self.kind == "write"


class Beat:
    """Called at each frame; tells of it now and then, so that a worker that hangs can be told from one that works."""

    def __init__(self, shard: str, video: str, report: Report) -> None:
        self._shard, self._video, self._report = shard, video, report
        self._told = time.monotonic()
        self._num_frames = 0

    def __call__(self, num_frames: int) -> None:
        """Take in that `num_frames` more are decoded."""
        self._num_frames += num_frames
        if time.monotonic() - self._told > _SECONDS_BETWEEN_NOTES:
            self.tell("video")

    def tell(
        self, kind: Literal["video", "done", "skipped"], *, spent_seconds: float = 0.0, seconds: float = 0.0
    ) -> None:
        """Send a note now, with the frames since the last one."""
        note = VideoNote(
            kind=kind,
            shard=self._shard,
            video=self._video,
            num_frames=self._num_frames,
            spent_seconds=spent_seconds,
            seconds=seconds,
        )
        self._report(note)
        self._told, self._num_frames = time.monotonic(), 0
