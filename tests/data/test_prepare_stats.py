"""Prepare statistics: what workers report is stats once, also after a second attempt."""

import pytest
from respike.data import prepare_stats
from respike.data.prepare_stats import NUM_SLOWEST, PrepareSpeed, PrepareStats
from respike.data.shard_worker import ProgressEvent


class Shown:
    """A Task that remembers."""

    def __init__(self):
        self.done, self.facts, self.workers = 0, {}, {}

    def advance(self, amount=1, **facts):
        self.done += amount
        self.facts |= facts

    def at(self, worker, what):
        self.workers[worker] = what


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 50.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(prepare_stats, "time", made)
    return made


def test_videos_frames_and_speed_are_counted(clock):
    shown = Shown()
    stats = PrepareStats(shown)
    clock.now += 2
    stats.add(0, ProgressEvent(kind="start", shard="a.tar"))
    stats.add(0, ProgressEvent(kind="video", shard="a.tar", video="v", num_frames=30))
    done = ProgressEvent(kind="done", shard="a.tar", video="v", num_frames=20, work_seconds=1.5, video_seconds=4.0)
    stats.add(0, done)
    stats.add(1, ProgressEvent(kind="skipped", shard="b.tar", video="w", work_seconds=0.1))
    assert shown.done == 2
    assert shown.facts == {"skipped": 1, "frames/s": "25", "× real time": "2.0"}
    assert shown.workers == {0: "a.tar: v", 1: "b.tar: w"}
    speed = stats.speed()
    assert (speed.videos_per_second, speed.frames_per_second, speed.times_real_time) == (1.0, 25.0, 2.0)
    assert speed.slowest == (("v", 1.5), ("w", 0.1))


def test_a_second_attempt_counts_no_video_twice():
    shown = Shown()
    stats = PrepareStats(shown)
    for _ in range(2):
        stats.add(0, ProgressEvent(kind="start", shard="a.tar"))
        stats.add(0, ProgressEvent(kind="skipped", shard="a.tar", video="v"))
        stats.add(0, ProgressEvent(kind="done", shard="a.tar", video="w"))
    assert shown.done == 2
    assert shown.facts["skipped"] == 1
    stats.finish_shard("a.tar", 5, 1)
    assert shown.done == 5


def test_the_slowest_are_few_and_each_is_named_once():
    stats = PrepareStats(Shown())
    for seconds in range(12):
        event = ProgressEvent(kind="done", shard="a.tar", video=f"v{seconds % 8}", work_seconds=float(seconds))
        stats.add(0, event)
    assert stats.speed().slowest == (("v3", 11.0), ("v2", 10.0), ("v1", 9.0), ("v0", 8.0), ("v7", 7.0))
    assert len(stats.speed().slowest) == NUM_SLOWEST


def test_nothing_done_has_no_speed():
    assert PrepareSpeed().videos_per_second == 0


def test_only_the_worker_of_a_finished_shard_is_idle():
    shown = Shown()
    stats = PrepareStats(shown)
    stats.add(0, ProgressEvent(kind="write", shard="a.tar"))
    stats.add(1, ProgressEvent(kind="video", shard="b.tar", video="w"))
    stats.finish_shard("a.tar", 3, 0)
    assert shown.workers == {0: "idle", 1: "b.tar: w"}
    stats.add(0, ProgressEvent(kind="start", shard="c.tar"))
    assert shown.workers[0] == "c.tar: starting"
