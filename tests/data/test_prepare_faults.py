"""Prepare under faults: crashing workers, killed runs, full disks and damaged videos never change what is written."""

import dataclasses
import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from respike.common.errors import RespikeError
from respike.common.progress import Silence
from respike.data import clip_encoder, event_codec, shard_worker
from respike.data.dataset import open_shards
from respike.data.executors import local
from respike.data.executors.base import run_serially
from respike.data.index import read_index
from respike.data.plan import Part
from respike.data.preparation import prepare
from respike.data.video_writer import write_video

from tests.conftest import contents, listing_of, moving_square
from tests.data.conftest import SMALL, replaced, skipped

ROOT = Path(__file__).parents[2]


CRASHING = "wave/v02.mp4"


def without_file(listing, video_id):
    videos = (dataclasses.replace(v, path=None) if v.video_id == video_id else v for v in listing.videos)
    return dataclasses.replace(listing, videos=tuple(videos))


def shards(out: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(out).items() if name.endswith(".tar")}


@pytest.mark.parametrize("point", ["decode:v02", "clip:v02-", "fsync:train-000001.tar", "renamed:test-000000.tar"])
def test_a_worker_that_dies_once_changes_no_byte(tmp_path, listing, undisturbed, monkeypatch, point):
    monkeypatch.setenv("RESPIKE_FAULTS", f"{point}=kill@{tmp_path}/once")
    prepare(listing, tmp_path / "out", SMALL, num_workers=2)
    assert (tmp_path / "once").exists()
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.parametrize(("action", "number", "num_workers"), [("kill", 9, 1), ("segfault", 11, 2)])
def test_only_the_video_that_crashes_its_worker_is_skipped(tmp_path, listing, monkeypatch, action, number, num_workers):
    monkeypatch.setenv("RESPIKE_FAULTS", f"decode:{CRASHING}={action}")
    summary = prepare(listing, tmp_path / "out", SMALL, num_workers=num_workers)
    assert (summary.written, summary.skipped) == (11, 1)
    assert skipped(tmp_path / "out") == [(CRASHING, "crash", f"its worker died 2 times: killed by signal {number}")]
    prepare(without_file(listing, CRASHING), tmp_path / "without", SMALL, executor=run_serially)
    assert shards(tmp_path / "out") == shards(tmp_path / "without")


def test_all_crashing_videos_of_a_shard_are_skipped(tmp_path, listing, monkeypatch):
    monkeypatch.setenv("RESPIKE_FAULTS", "clip:v01-=kill;decode:v03.mp4=segfault")
    settings = dataclasses.replace(SMALL, videos_per_shard=64)
    summary = prepare(listing, tmp_path / "out", settings, num_workers=2)
    assert {(row[0], row[1]) for row in skipped(tmp_path / "out")} == {
        ("jump/v01.mp4", "crash"),
        ("jump/v03.mp4", "crash"),
    }
    assert summary.written == 10


def test_a_video_that_hangs_is_skipped(tmp_path, listing, monkeypatch):
    monkeypatch.setenv("RESPIKE_FAULTS", f"decode:{CRASHING}=hang")
    started = time.monotonic()
    summary = prepare(listing, tmp_path / "out", SMALL, num_workers=2, video_timeout_seconds=2.0)
    assert time.monotonic() - started < 60
    assert skipped(tmp_path / "out") == [(CRASHING, "timeout", "no frame came in time")]
    assert summary.written == 11
    monkeypatch.delenv("RESPIKE_FAULTS")
    prepare(without_file(listing, CRASHING), tmp_path / "without", SMALL, executor=run_serially)
    assert shards(tmp_path / "out") == shards(tmp_path / "without")


def test_deaths_at_no_video_end_the_run_with_a_reason(tmp_path, listing, monkeypatch):
    monkeypatch.setenv("RESPIKE_FAULTS", "fsync:test-000000.tar=kill")
    with pytest.raises(RespikeError, match="a worker died 3 times at shard test-000000"):
        prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_device_and_a_pipe_are_skipped_at_once(tmp_path, listing):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    with_both = replaced(replaced(listing, 1, tmp_path / "pipe.mp4"), 3, tmp_path / "device.mp4")
    started = time.monotonic()
    prepare(with_both, tmp_path / "out", SMALL, executor=run_serially)
    assert time.monotonic() - started < 30
    assert [row[1:] for row in skipped(tmp_path / "out")] == [("open", "not a regular file")] * 2


def run_in_group(out: Path, video_folder: Path, **environment: str) -> subprocess.Popen:
    """Start the same run as `undisturbed` with two workers, in a process group of its own."""
    program = (
        "import sys; from pathlib import Path; from respike.data.preparation import prepare\n"
        "from tests.conftest import listing_of; from tests.data.conftest import SMALL\n"
        "prepare(listing_of(Path(sys.argv[1])), Path(sys.argv[2]), SMALL, num_workers=2)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, video_folder, out],
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
    )


# in the order in which a run reaches them
STEPS = [
    "fsync:settings.json",
    "renamed:plan.json",
    "fsync:train-000001.tar",
    "rename:train-000001.tar",
    "renamed:train-000001.tar",
    "rename:train-000001.tar.json",
    "renamed:train-000001.tar.json",
    "rename:videos.jsonl",
    "rename:dataset.json",
    "renamed:dataset.json",
]


@pytest.mark.parametrize("steps", [STEPS[:4], STEPS[4:7], STEPS[7:]], ids=["start", "shard", "index"])
def test_runs_killed_at_any_step_end_with_the_same_bytes(tmp_path, video_folder, listing, undisturbed, steps):
    """Each run is killed a step later than the one before it, the last is left alone."""
    out = tmp_path / "out"
    for number, step in enumerate(steps):
        killed = run_in_group(out, video_folder, RESPIKE_FAULTS=f"{step}=kill-group@{tmp_path}/once{number}")
        assert killed.wait(timeout=60) == -signal.SIGKILL
        assert (out / "dataset.json").exists() == (step == "renamed:dataset.json")
    prepare(listing, out, SMALL, executor=run_serially)
    assert contents(out) == undisturbed
    assert temporaries(out) == []


def temporaries(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob(".*.tmp"))


def test_sigterm_leaves_no_temporary_file(tmp_path, video_folder):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "respike", "prepare", "folder", "--root", str(video_folder), "--out", str(out)]
    # the workers hang in the middle of their shards
    environment = os.environ | {"RESPIKE_FAULTS": "decode=hang"}
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True, env=environment) as run:
        deadline = time.monotonic() + 60
        while not list(out.glob(".*.tar.*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(out.glob(".*.tar.*.tmp"))
        os.killpg(run.pid, signal.SIGTERM)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 143, errors
    assert temporaries(out) == []


def test_a_part_removes_only_its_own_temporary_files(tmp_path, video_folder):
    out = tmp_path / "out"
    listing = listing_of(video_folder)
    prepare(listing, out, SMALL, executor=run_serially, part=Part(number=1, count=2))
    own, other = ".test-000000.tar.0123abcd.tmp", ".train-000000.tar.0123abcd.tmp"
    owners = {Part(number=number, count=2) for number in (1, 2)}
    for name in (own, other):
        (out / name).write_bytes(b"half")
        (out / ".respike" / "done" / name.replace(".tar.", ".tar.json.")).write_bytes(b"half")
    for part in sorted(owners, key=lambda part: part.number):
        before = set(temporaries(out))
        prepare(listing, out, SMALL, executor=run_serially, part=part)
        # one of the two shards is this part's, and its temporary files alone are gone
        gone = before - set(temporaries(out))
        assert len(gone) == 2
        assert len({name.partition(".tar")[0] for name in gone}) == 1
    assert temporaries(out) == []


def in_namespace(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a shell script in a namespace in which it may mount file systems."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("`unshare -Urm` is not allowed here")
    command = [unshare, "-Urm", "bash", "-euc", script, "bash", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


PREPARE = f'"{sys.executable}" -m respike prepare folder --videos-per-shard 2 --workers 1 --threshold 1 --color rgb'


def test_a_full_disk_keeps_finished_shards(tmp_path, video_folder):
    script = f"""
        mkdir "$2/small" && mount -t tmpfs -o size=1m tmpfs "$2/small"
        head -c "$3" /dev/zero > "$2/small/ballast"
        if {PREPARE} --root "$1" --out "$2/small/out" --quiet; then exit 9; fi
        ls "$2/small/out/.respike/done" | wc -l; ls -a "$2/small/out" | grep -c tmp || true
        rm "$2/small/ballast"
        mount -o remount,size=100m "$2/small"
        {PREPARE} --root "$1" --out "$2/small/out" --quiet
        cp -r "$2/small/out" "$2/after"
    """
    subprocess.run(["bash", "-euc", f'{PREPARE} --root "$1" --out "$2" --quiet', "bash", video_folder, tmp_path / "b"])
    size = sum(len(content) for content in shards(tmp_path / "b").values())
    answer = in_namespace(script, video_folder, tmp_path, (1 << 20) - size // 2)
    assert answer.returncode == 0, answer.stderr
    assert "No space left on device" in answer.stderr.splitlines()[0]
    assert answer.stderr.splitlines()[1].startswith("hint: free space")
    assert "Traceback" not in answer.stderr
    num_kept, num_temporary = map(int, answer.stdout.split())
    assert 0 < num_kept < 6
    assert num_temporary == 0
    assert contents(tmp_path / "after") == contents(tmp_path / "b")


def test_a_file_size_limit_is_an_error_that_can_be_lifted(tmp_path, video_folder):
    run = f'{PREPARE} --root "$1" --out "$2" --quiet'
    shell = ["bash", "-euc"]
    limited = subprocess.run(
        [*shell, f"ulimit -f 24; {run}", "bash", video_folder, tmp_path / "a"], capture_output=True, text=True, cwd=ROOT
    )
    assert limited.returncode == 1
    assert "File too large" in limited.stderr
    assert "Traceback" not in limited.stderr
    for out in ("a", "b"):
        subprocess.run([*shell, run, "bash", video_folder, tmp_path / out], check=True, cwd=ROOT)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_read_only_output_is_found_before_decoding(tmp_path, video_folder):
    script = f"""
        mkdir -p "$2/out/.respike/done" && mount --bind "$2/out" "$2/out" && mount -o remount,bind,ro "$2/out"
        export RESPIKE_FAULTS="decode=hang"
        {PREPARE} --root "$1" --out "$2/out"
    """
    answer = in_namespace(script, video_folder, tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: cannot write to {tmp_path}/out: Read-only file system")


def test_an_output_below_a_file_is_an_error(tmp_path, listing):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RespikeError, match="cannot write"):
        prepare(listing, blocked / "out", SMALL, executor=run_serially)


def test_a_full_disk_is_not_blamed_on_the_video(tmp_path, listing, monkeypatch):
    def add(self, key, members):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_worker.ShardWriter, "add", add)
    with pytest.raises(RespikeError, match=r"cannot write .*\.tar: No space left"):
        prepare(listing, tmp_path / "out", SMALL, executor=run_serially)


def test_a_video_with_a_read_error_is_skipped(tmp_path, listing, monkeypatch):
    real = clip_encoder.probe

    def probe(path, **options):
        if path == listing.videos[3].path:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, **options)

    monkeypatch.setattr(clip_encoder, "probe", probe)
    summary = prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    assert [(video.video, video.stage, video.reason) for video in summary.skipped_videos] == [
        (listing.videos[3].video_id, "read", "Input/output error")
    ]


def test_keep_partial_keeps_half_a_file_up_to_the_cut(tmp_path, listing, half_file):
    with_half = replaced(listing, 1, half_file)
    video_id = listing.videos[1].video_id
    prepare(with_half, tmp_path / "strict", SMALL, executor=run_serially)
    ((video, stage, reason),) = skipped(tmp_path / "strict")
    assert (video, stage) == (video_id, "decode")
    assert reason.startswith("the file was cut: its segment says ")

    summary = prepare(
        with_half, tmp_path / "partial", dataclasses.replace(SMALL, keep_partial=True), executor=run_serially
    )
    assert (summary.written, summary.skipped, summary.num_partial) == (12, 0, 1)
    (row,) = [row for row in read_index(tmp_path / "partial").videos if row.partial]
    assert (row.video, row.partial) == (video_id, reason)
    dataset = open_shards(tmp_path / "partial")
    clips = [dataset[number] for number in range(len(dataset))]
    assert {clip.info.video for clip in clips if clip.info.partial} == {video_id}
    assert 1 <= sum(clip.info.partial for clip in clips) < 3
    assert max(max(clip.info.frame_indices) for clip in clips if clip.info.partial) < 59


def test_keep_partial_keeps_the_clips_before_damage(tmp_path, listing):
    path = tmp_path / "damaged.mp4"
    write_video(path, iter(moving_square(80, width=160, height=120)), options={"g": 100, "crf": 10, "bf": 0})
    content = bytearray(path.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    damaged = replaced(listing, 1, path)
    prepare(damaged, tmp_path / "strict", SMALL, executor=run_serially)
    assert [row[:2] for row in skipped(tmp_path / "strict")] == [(listing.videos[1].video_id, "decode")]
    summary = prepare(
        damaged, tmp_path / "partial", dataclasses.replace(SMALL, keep_partial=True), executor=run_serially
    )
    assert (summary.skipped, summary.num_partial) == (0, 1)
    (row,) = [row for row in read_index(tmp_path / "partial").videos if row.partial]
    assert 1 <= row.num_clips < 5


def test_a_damaged_video_leaves_nothing_in_the_shard(tmp_path, listing):
    path = tmp_path / "damaged.mp4"
    write_video(path, iter(moving_square(80)), options={"g": 100, "crf": 10, "bf": 0})
    content = bytearray(path.read_bytes())
    middle = len(content) * 8 // 10
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    prepare(replaced(listing, 1, path), tmp_path / "damaged", SMALL, executor=run_serially)
    prepare(replaced(listing, 1, None), tmp_path / "missing", SMALL, executor=run_serially)
    assert [row[1] for row in skipped(tmp_path / "damaged")] == ["decode"]
    assert shards(tmp_path / "damaged") == shards(tmp_path / "missing")


def test_an_encoding_error_skips_the_video(tmp_path, listing):
    # scaled to a short side of 16 its frames are wider than a JPEG may be
    path = tmp_path / "narrow.mkv"
    write_video(path, iter(moving_square(4, width=20000, height=16)), codec="ffv1")
    settings = dataclasses.replace(SMALL, short_side=16)
    prepare(replaced(listing, 1, path), tmp_path / "out", settings, executor=run_serially)
    assert read_index(tmp_path / "out").num_written + len(skipped(tmp_path / "out")) == 12


def test_a_clip_too_large_to_read_is_not_written(tmp_path, listing, monkeypatch):
    monkeypatch.setattr(event_codec, "MAX_EVENT_BYTES", 10_000)
    with pytest.raises(RespikeError, match=r"no video could be read of 12 .*encode: .*10,000"):
        prepare(listing, tmp_path / "out", SMALL, executor=run_serially)


def test_a_decoder_that_leaks_cannot_fill_memory(tmp_path, listing, undisturbed, monkeypatch):
    # each video leaks 30 MB, so that a shard of three is over the limit
    monkeypatch.setenv("RESPIKE_FAULTS", "decode=leak")
    monkeypatch.setattr(local, "MAX_WORKER_BYTES", 150_000_000)
    processes = set()

    class Watch(Silence):
        def advance(self, amount=1, **facts):
            processes.update(child.pid for child in psutil.Process().children())

    prepare(listing, tmp_path / "out", SMALL, num_workers=1, progress=Watch())
    assert len(processes) >= 4
    assert contents(tmp_path / "out") == undisturbed


def test_a_long_video_takes_no_more_memory(tmp_path):
    """A video of 1,500 frames takes no more memory than one of 100."""
    frames = moving_square(50, width=320, height=240)
    peaks = []
    for num_rounds in (2, 30):
        folder = tmp_path / f"{num_rounds}" / "class"
        folder.mkdir(parents=True)
        supply = (frame for _ in range(num_rounds) for frame in frames)
        write_video(folder / "v.mp4", supply, options={"preset": "ultrafast"})
        program = """
import resource, sys
from pathlib import Path
from respike.data.shard_worker import build_shard
from respike.data.plan import plan_shards
from respike.data.prepare_config import PrepareConfig
from tests.conftest import listing_of
out = Path(sys.argv[2])
(out / ".respike/done").mkdir(parents=True)
(task,) = plan_shards(listing_of(Path(sys.argv[1])), out, PrepareConfig())
build_shard(task, lambda event: None).wait()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, task.path.stat().st_size)
"""
        answer = subprocess.run(
            [sys.executable, "-c", program, folder.parent, tmp_path / f"out{num_rounds}"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        peaks.append([int(word) for word in answer.stdout.split()])
    (short, _), (long, num_bytes) = peaks
    assert num_bytes > 9e6
    assert long - short < 6e6


def test_dangling_links_are_skipped(tmp_path, listing):
    (link := tmp_path / "link.mp4").symlink_to(tmp_path / "nothing.mp4")
    videos = (dataclasses.replace(listing.videos[0], path=link), *listing.videos[1:])
    settings = dataclasses.replace(SMALL, videos_per_shard=1)
    summary = prepare(dataclasses.replace(listing, videos=videos), tmp_path / "out", settings, executor=run_serially)
    assert [(video.video, video.stage) for video in summary.skipped_videos] == [(listing.videos[0].video_id, "missing")]


def test_prepare_works_on_a_file_system_without_links_locks_and_flush(tmp_path, listing, undisturbed, monkeypatch):
    flush = os.fsync

    def refuse(code):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", lambda *names: refuse(errno.EPERM))
    monkeypatch.setattr(os, "fsync", lambda file: refuse(errno.EINVAL) if is_folder(file) else flush(file))
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: refuse(errno.ENOLCK))
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    assert contents(tmp_path / "out") == undisturbed
    assert prepare(listing, tmp_path / "out", SMALL, executor=run_serially).num_built == 0


def is_folder(file):
    return stat.S_ISDIR(os.fstat(file if isinstance(file, int) else file.fileno()).st_mode)
