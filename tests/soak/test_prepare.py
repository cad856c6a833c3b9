"""Prepare over a long time: hundreds of kills lose nothing, and memory stays flat."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from respike.data.preparation import prepare
from respike.data.video_writer import write_video

from tests.conftest import contents, listing_of, moving_square
from tests.data.conftest import SMALL
from tests.data.test_prepare_faults import run_in_group

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_nothing(tmp_path, capsys):
    """The process group is killed again and again, then one run is left alone."""
    root = tmp_path / "videos"
    sources = []
    for number in range(10):
        path = tmp_path / f"source{number}.mp4"
        write_video(path, iter(moving_square(48, width=96, height=64, seed=number)), options={"crf": 18})
        sources.append(path)
    for number in range(300):
        target = root / f"class{number % 6}" / f"v{number:03d}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(sources[number % 10], target)
    started = time.monotonic()
    assert run_in_group(tmp_path / "undisturbed", root).wait() == 0
    # most kills hit the work, some the start; a slower machine waits longer
    longest_wait = min(5.0, (time.monotonic() - started) / 2)
    out = tmp_path / "out"
    generator = random.Random(0)
    num_kills = num_finished = 0
    started = time.monotonic()
    finished_shards: set[int] = set()
    while num_kills < 200:
        process = run_in_group(out, root)
        try:
            code = process.wait(timeout=generator.uniform(0.02, longest_wait))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            num_kills += 1
        else:
            assert code == 0
            num_finished += 1
            # work for the kills that are left
            for manifest in generator.sample(sorted((out / ".respike/done").glob("*.json")), 50):
                manifest.unlink()
        finished_shards.add(len(list((out / ".respike/done").glob("*.json"))))
    summary = prepare(listing_of(root), out, SMALL, num_workers=2)
    assert (summary.listed, summary.written) == (300, 300)
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert len(finished_shards) > 20, "the kills must fall while work is under way"
    with capsys.disabled():
        print(
            f"\nsoak: {num_kills} kills in {time.monotonic() - started:.0f} s, {num_finished} runs got through, "
            f"{summary.num_built} of {summary.num_shards} shards were left to the last run; all bytes equal"
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_stays_flat_over_a_thousand_videos(tmp_path, capsys):
    memory = tmp_path / "memory"
    memory.mkdir()
    source = tmp_path / "source.mp4"
    write_video(source, iter(moving_square(64, width=160, height=120)), options={"crf": 20})
    root = tmp_path / "videos"
    for number in range(1100):
        target = root / f"class{number % 5}" / f"v{number:04d}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    # one worker, never replaced, and shards of 20 videos
    program = """
import resource, sys
from pathlib import Path
import psutil
from respike.data.executors import local
from respike.data.plan import plan_shards
from respike.data.preparation import PrepareConfig, prepare
from tests.conftest import listing_of
local.MAX_ITEMS_PER_WORKER = 10**9
sizes, own = [], []
class Watcher:
    def task(self, *a, **k):
        import contextlib
        return contextlib.nullcontext(self)
    def advance(self, amount=1, **facts):
        if amount == 1:
            sizes.append(sum(child.memory_info().rss for child in psutil.Process().children()))
            own.append(psutil.Process().memory_info().rss)
    def at(self, *a): pass
    def say(self, *a): pass
    def warn(self, *a): pass
settings = PrepareConfig(videos_per_shard=20)
prepare(listing_of(Path(sys.argv[1])), Path(sys.argv[2]), settings, num_workers=1, progress=Watcher())
print(max(sizes[:100]), max(sizes[-100:]), max(own[:100]), max(own[-100:]), len(sizes), max(sizes))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, root, tmp_path / "out"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    early, late, own_early, own_late, num_videos, peak = map(int, answer.stdout.split())
    assert num_videos == 1100
    with capsys.disabled():
        print(
            f"\nmemory over 1,000 videos: worker {early / 1e6:.1f} → {late / 1e6:.1f} MB (peak {peak / 1e6:.1f}), "
            f"parent {own_early / 1e6:.1f} → {own_late / 1e6:.1f} MB"
        )
    assert late - early < 20e6
    assert own_late - own_early < 20e6
    assert peak < 500e6
