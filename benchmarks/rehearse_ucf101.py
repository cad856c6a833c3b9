"""Prepares split 1 of a UCF101 tree of full size: 13,320 names for a few short synthetic videos. Then it resumes.

    python benchmarks/rehearse_ucf101.py LISTS [--frames 186] [--workers 2] [--folder DIR] [--json PATH]

LISTS is the folder of the official lists (classInd.txt, trainlist01.txt, testlist01.txt). The videos of UCF101 have 186
frames on average. The names are hard links, so the tree needs no space. The shards have full size.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

import clips
import harness

NUM_CLIPS = 5
SAMPLE_SECONDS = 0.25


def main() -> None:
    """Prepare the tree twice and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path, help="folder of the official lists")
    parser.add_argument("--frames", type=int, default=186, help="frames of each video")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="working folder  [default: a temporary folder]")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = rehearse(Path(folder), arguments.lists, arguments.frames, arguments.workers)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


def rehearse(folder: Path, lists: Path, num_frames: int, num_workers: int) -> dict[str, Any]:
    """Prepare a full tree under `folder`, then resume; return the figures of both."""
    root, out = folder / "ucf101", folder / "out"
    num_videos = make_tree(root, lists, clips.make_clips(folder / "clips", NUM_CLIPS, num_frames))
    command = [sys.executable, "-m", "respike", "prepare", "ucf101", "--root", str(root), "--out", str(out)]
    command += ["--split", "1", "--workers", str(num_workers), "--json"]
    load = os.getloadavg()[0]
    facts, whole = run_watched(command)
    assert facts["listed"] == facts["written"] == num_videos, facts
    resumed, resume = run_watched(command)
    assert resumed["num_built"] == 0, resumed
    return {
        "rehearsal": "ucf101 split 1",
        "workers": num_workers,
        "videos": num_videos,
        "frames_each": num_frames,
        "seconds": round(whole["seconds"], 1),
        "videos_per_second": round(num_videos / whole["seconds"], 2),
        "frames_per_second": round(num_videos * num_frames / whole["seconds"], 1),
        "core_ms_a_frame": round(1000 * whole["cpu_seconds"] / (num_videos * num_frames), 4),
        "num_clips": facts["num_clips"],
        "num_shards": facts["num_shards"],
        "bytes": facts["num_bytes"],
        "bytes_a_frame": round(facts["num_bytes"] / (num_videos * num_frames), 1),
        "peak_mb_parent": round(whole["parent_bytes"] / 1e6, 1),
        "peak_mb_worker": round(whole["worker_bytes"] / 1e6, 1),
        "resume_seconds": round(resume["seconds"], 2),
        "resume_seconds_inside": resumed["seconds"],
        "machine": harness.describe_machine()
        | {"load_average_before": load, "load_average_after": os.getloadavg()[0], "niceness": os.nice(0)},
        "versions": harness.find_versions(),
    }


def make_tree(root: Path, lists: Path, sources: list[Path]) -> int:
    """Create a hard link for every video of split 1; return their number."""
    target = root / "ucfTrainTestlist"
    shutil.copytree(lists, target)
    names = [
        line.split()[0]
        for part in ("trainlist01.txt", "testlist01.txt")
        for line in (target / part).read_text().splitlines()
        if line.strip()
    ]
    for number, name in enumerate(names):
        clips.link(sources[number % len(sources)], root / "UCF-101" / name)
    return len(names)


def run_watched(command: list[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a command; return the JSON that it printed, and its wall time, processor time and peak memory."""
    peaks = {"parent_bytes": 0.0, "worker_bytes": 0.0}
    started = time.perf_counter()
    before = os.times()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watcher = threading.Thread(target=watch, args=(psutil.Process(process.pid), peaks), daemon=True)
        watcher.start()
        assert process.stdout is not None
        text = process.stdout.read()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    after = os.times()
    # grandchildren count after their parents waited for them
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(text), peaks | {"seconds": time.perf_counter() - started, "cpu_seconds": spent}


def watch(process: psutil.Process, peaks: dict[str, float]) -> None:
    """Record the peak resident memory of a process and of any of its children until the process ends."""
    while True:
        try:
            peaks["parent_bytes"] = max(peaks["parent_bytes"], process.memory_info().rss)
            for child in process.children(recursive=True):
                peaks["worker_bytes"] = max(peaks["worker_bytes"], child.memory_info().rss)
        except psutil.NoSuchProcess:
            if not process.is_running():
                return
        time.sleep(SAMPLE_SECONDS)


if __name__ == "__main__":
    main()
