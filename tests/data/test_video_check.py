"""Video check: every video is counted once, those that prepare would skip are named, and nothing is written."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess

import pytest
from respike.data import video_check, video_reader
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare
from respike.data.video_check import check, write_report
from respike.data.video_writer import ffmpeg_path, write_video

from tests.conftest import listing_of, moving_square


@pytest.fixture
def root(video_folder, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(video_folder, root)
    (root / "wave" / "text.mp4").write_bytes(b"no video at all")
    (root / "wave" / "empty.mp4").touch()
    os.mkfifo(root / "wave" / "pipe.mp4")
    whole = root / "cut.mp4"
    write_video(whole, iter(moving_square(60)), options={"crf": 18, "movflags": "+faststart"})
    content = whole.read_bytes()
    (root / "jump" / "y-cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    # nothing but decoding finds what is wrong in the middle
    middle = len(content) // 2
    (root / "jump" / "z-changed.mp4").write_bytes(content[:middle] + b"\xff" * 200 + content[middle + 200 :])
    whole.unlink()
    return root


@pytest.fixture
def listing(root):
    listing = listing_of(root)
    videos = list(listing.videos)
    videos[0] = dataclasses.replace(videos[0], path=None)
    videos[1] = dataclasses.replace(videos[1], path=root / "jump" / "gone.mp4")
    return dataclasses.replace(listing, videos=tuple(videos))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_missing_and_invalid_videos_are_named(listing, num_workers):
    report = check(listing, num_workers=num_workers)
    assert (report.listed, report.present, report.missing, report.unreadable) == (17, 15, 2, 4)
    assert [(fault.video, fault.stage) for fault in report.faults] == [
        (listing.videos[0].video_id, "missing"),
        (listing.videos[1].video_id, "missing"),
        ("jump/y-cut.mp4", "decode"),
        ("wave/empty.mp4", "open"),
        ("wave/pipe.mp4", "open"),
        ("wave/text.mp4", "open"),
    ]
    assert [(count.name, count.listed, count.missing, count.unreadable) for count in report.classes] == [
        ("jump", 8, 2, 1),
        ("wave", 9, 0, 3),
    ]


def test_a_full_check_names_what_prepare_would_skip(listing, tmp_path):
    report = check(listing, full=True)
    assert ("jump/z-changed.mp4", "decode") in {(fault.video, fault.stage) for fault in report.faults}
    prepare(listing, tmp_path / "out", PrepareConfig(), executor=run_serially)
    skipped = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert sorted((fault.video, fault.stage) for fault in report.faults) == [
        (row["video"], row["stage"]) for row in skipped
    ]


def test_a_video_without_frames_is_found_by_decoding(listing, root):
    path = root / "jump" / "none.avi"
    command = [ffmpeg_path(), "-v", "error", "-f", "lavfi", "-i", "color=s=32x32", "-frames:v", "0", str(path)]
    subprocess.run(command, check=True)
    alone = dataclasses.replace(listing, videos=(dataclasses.replace(listing.videos[2], path=path),))
    assert not check(alone).faults
    assert [fault.reason for fault in check(alone, full=True).faults] == ["no frame could be decoded"]


@pytest.mark.parametrize(("action", "stage"), [("kill", "crash"), ("hang", "timeout")])
def test_a_video_that_crashes_or_hangs_its_worker_is_named(listing, monkeypatch, action, stage):
    monkeypatch.setenv("RESPIKE_FAULTS", f"decode:wave/v02={action}")
    report = check(listing, video_timeout_seconds=2)
    assert [fault.stage for fault in report.faults if fault.video == "wave/v02.mp4"] == [stage]
    assert report.unreadable == 5


def test_only_the_report_is_written(listing, root, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    report = check(listing)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    write_report(report, tmp_path / "faults.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [row["video"] for row in rows] == [fault.video for fault in report.faults]
    assert all(set(row) == {"video", "subset", "stage", "reason"} for row in rows)


def test_a_video_with_a_read_error_is_named(tmp_path, listing, monkeypatch):
    def find_cut(path, format_name):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(video_reader, "find_cut", find_cut)
    found = video_check.check_videos(video_check.CheckTask(videos=listing.videos[2:3], full=False), lambda event: None)
    assert [(fault.stage, fault.reason) for fault in found] == [("open", "Input/output error")]
