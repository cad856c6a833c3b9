"""Whatever happens to a run, what it writes is right: faults made for real, and the bytes compared."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.data.dataset import open_shards
from respike.data.executors import local
from respike.data.index import read_index
from respike.data.plan import Part
from respike.data.preparation import join_parts, prepare
from respike.data.video_writer import write_video

from tests.conftest import contents, listing_of, moving_square
from tests.data.conftest import SMALL, replaced

ROOT = Path(__file__).parents[2]
GUILTY = "wave/v02.mp4"


def without(listing, video_id):
    videos = (dataclasses.replace(v, path=None) if v.video_id == video_id else v for v in listing.videos)
    return dataclasses.replace(listing, videos=tuple(videos))


def skipped(out: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    return [(row["video"], row["stage"], row["reason"]) for row in rows]


def shards(out: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(out).items() if name.endswith(".tar")}


# --- workers that die or hang


@pytest.mark.parametrize("point", ["decode:v02", "clip:v02-", "fsync:train-000001.tar", "renamed:test-000000.tar"])
def test_a_worker_that_dies_once_leaves_no_trace(tmp_path, listing, undisturbed, monkeypatch, point):
    monkeypatch.setenv("RESPIKE_FAULTS", f"{point}=kill@{tmp_path}/once")
    prepare(listing, tmp_path / "out", SMALL, num_workers=2)
    assert (tmp_path / "once").exists()
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.parametrize(("action", "number"), [("kill", 9), ("segfault", 11)])
def test_a_video_that_kills_its_worker_is_skipped_alone(tmp_path, listing, monkeypatch, action, number):
    monkeypatch.setenv("RESPIKE_FAULTS", f"decode:{GUILTY}={action}")
    for num_workers in (1, 2):
        summary = prepare(listing, tmp_path / f"on{num_workers}", SMALL, num_workers=num_workers)
        assert (summary.written, summary.skipped) == (11, 1)
    assert skipped(tmp_path / "on1") == [(GUILTY, "crash", f"its worker died 2 times: killed by signal {number}")]
    assert contents(tmp_path / "on1") == contents(tmp_path / "on2")
    monkeypatch.delenv("RESPIKE_FAULTS")
    prepare(without(listing, GUILTY), tmp_path / "without", SMALL, num_workers=1)
    assert shards(tmp_path / "on1") == shards(tmp_path / "without")


def test_several_guilty_videos_of_one_shard_are_all_found(tmp_path, listing, monkeypatch):
    monkeypatch.setenv("RESPIKE_FAULTS", "clip:v01-=kill;decode:v03.mp4=segfault")
    settings = dataclasses.replace(SMALL, videos_per_shard=64)
    summary = prepare(listing, tmp_path / "out", settings, num_workers=2)
    assert {(row[0], row[1]) for row in skipped(tmp_path / "out")} == {
        ("jump/v01.mp4", "crash"),
        ("jump/v03.mp4", "crash"),
    }
    assert summary.written == 10


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_video_that_hangs_is_skipped_at_its_deadline(tmp_path, listing, monkeypatch, num_workers):
    monkeypatch.setenv("RESPIKE_FAULTS", f"decode:{GUILTY}=hang")
    started = time.monotonic()
    summary = prepare(listing, tmp_path / "out", SMALL, num_workers=num_workers, video_timeout_seconds=2.0)
    assert time.monotonic() - started < 60
    assert skipped(tmp_path / "out") == [(GUILTY, "timeout", "no frame came in time")]
    assert summary.written == 11
    monkeypatch.delenv("RESPIKE_FAULTS")
    prepare(without(listing, GUILTY), tmp_path / "without", SMALL, num_workers=1)
    assert shards(tmp_path / "out") == shards(tmp_path / "without")


def test_a_worker_that_dies_at_no_video_ends_the_run_with_a_reason(tmp_path, listing, monkeypatch):
    monkeypatch.setenv("RESPIKE_FAULTS", "fsync:test-000000.tar=kill")
    with pytest.raises(RespikeError, match="a worker died 3 times at shard test-000000"):
        prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_device_and_a_pipe_are_skipped_at_once(tmp_path, listing):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    with_both = replaced(replaced(listing, 1, tmp_path / "pipe.mp4"), 3, tmp_path / "device.mp4")
    started = time.monotonic()
    prepare(with_both, tmp_path / "out", SMALL, num_workers=1)
    assert time.monotonic() - started < 30
    assert [row[1:] for row in skipped(tmp_path / "out")] == [("open", "not a regular file")] * 2


# --- runs that are killed


def run_program(out: Path, video_folder: Path, **environment: str) -> subprocess.Popen:
    """The same run as `undisturbed`, in a process group of its own."""
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


@pytest.mark.parametrize(
    "point",
    [
        "fsync:train-000001.tar",
        "rename:train-000001.tar",
        "renamed:train-000001.tar",
        "rename:train-000001.tar.json",
        "renamed:train-000001.tar.json",
        "fsync:settings.json",
        "renamed:plan.json",
        "rename:videos.jsonl",
        "rename:dataset.json",
        "renamed:dataset.json",
    ],
)
def test_killed_just_before_or_after_a_step_the_next_run_ends_with_the_same_bytes(
    tmp_path, video_folder, listing, undisturbed, point
):
    out = tmp_path / "out"
    killed = run_program(out, video_folder, RESPIKE_FAULTS=f"{point}=kill-group@{tmp_path}/once")
    assert killed.wait(timeout=60) == -signal.SIGKILL
    if point != "renamed:dataset.json":
        assert not (out / "dataset.json").exists()
    prepare(listing, out, SMALL, num_workers=2)
    assert contents(out) == undisturbed
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_kills_at_random_moments_lose_nothing(tmp_path, capsys):
    """The soak: the whole process group is killed again and again, then one run is left alone."""
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
    assert run_program(tmp_path / "undisturbed", root).wait() == 0
    # mostly into the work, sometimes into the start; a slower machine waits longer
    longest_wait = min(5.0, (time.monotonic() - started) / 2)
    out = tmp_path / "out"
    generator = random.Random(0)
    num_kills = num_finished = 0
    started = time.monotonic()
    finished_shards: set[int] = set()
    while num_kills < 200:
        process = run_program(out, root)
        try:
            code = process.wait(timeout=generator.uniform(0.02, longest_wait))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            num_kills += 1
        else:
            assert code == 0
            num_finished += 1
            # some work again for the kills that are left
            for mark in generator.sample(sorted((out / ".respike/done").glob("*.json")), 50):
                mark.unlink()
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


# --- disks that refuse


def in_namespace(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a shell script where it may mount what it likes, unseen by the rest of the machine."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("`unshare -Urm` is not allowed here")
    command = [unshare, "-Urm", "bash", "-euc", script, "bash", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


PREPARE = f'"{sys.executable}" -m respike prepare folder --videos-per-shard 2 --workers 1 --threshold 1 --color rgb'


def test_a_full_disk_is_an_error_that_keeps_finished_shards_and_room_leads_to_the_same(tmp_path, video_folder):
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


def test_a_limit_on_file_sizes_is_an_error_and_lifted_leads_to_the_same(tmp_path, video_folder):
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


def test_a_read_only_output_is_found_before_anything_is_decoded(tmp_path, video_folder):
    script = f"""
        mkdir -p "$2/out/.respike/done" && mount --bind "$2/out" "$2/out" && mount -o remount,bind,ro "$2/out"
        export RESPIKE_FAULTS="decode=hang"
        {PREPARE} --root "$1" --out "$2/out"
    """
    answer = in_namespace(script, video_folder, tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: cannot write to {tmp_path}/out: Read-only file system")


# --- what is skipped, tried again, or kept in part


@pytest.fixture
def half_file(tmp_path):
    """A Matroska file cut in the middle, and how many frames it has left."""
    path = tmp_path / "half.mkv"
    write_video(path, iter(moving_square(60)), options={"g": 10})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def test_a_half_file_is_skipped_and_with_keep_partial_kept_up_to_the_cut(tmp_path, listing, half_file):
    with_half = replaced(listing, 1, half_file)
    video_id = listing.videos[1].video_id
    prepare(with_half, tmp_path / "strict", SMALL, num_workers=1)
    ((video, stage, reason),) = skipped(tmp_path / "strict")
    assert (video, stage) == (video_id, "decode")
    assert reason.startswith("the file was cut: its segment says ")

    summary = prepare(with_half, tmp_path / "partial", dataclasses.replace(SMALL, keep_partial=True), num_workers=1)
    assert (summary.written, summary.skipped, summary.num_partial) == (12, 0, 1)
    (row,) = [row for row in read_index(tmp_path / "partial").videos if row.partial]
    assert (row.video, row.partial) == (video_id, reason)
    dataset = open_shards(tmp_path / "partial")
    clips = [dataset[number] for number in range(len(dataset))]
    assert {clip.info.video for clip in clips if clip.info.partial} == {video_id}
    assert 1 <= sum(clip.info.partial for clip in clips) < 3
    assert max(max(clip.info.frame_indices) for clip in clips if clip.info.partial) < 59


def test_with_keep_partial_a_decoding_error_in_the_middle_keeps_the_clips_before_it(tmp_path, listing):
    path = tmp_path / "damaged.mp4"
    write_video(path, iter(moving_square(80, width=160, height=120)), options={"g": 100, "crf": 10, "bf": 0})
    content = bytearray(path.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    damaged = replaced(listing, 1, path)
    prepare(damaged, tmp_path / "strict", SMALL, num_workers=1)
    assert [row[:2] for row in skipped(tmp_path / "strict")] == [(listing.videos[1].video_id, "decode")]
    summary = prepare(damaged, tmp_path / "partial", dataclasses.replace(SMALL, keep_partial=True), num_workers=1)
    assert (summary.skipped, summary.num_partial) == (0, 1)
    (row,) = [row for row in read_index(tmp_path / "partial").videos if row.partial]
    assert 1 <= row.num_clips < 5


def test_a_damaged_video_leaves_nothing_of_itself_in_the_shard(tmp_path, listing):
    path = tmp_path / "damaged.mp4"
    write_video(path, iter(moving_square(80)), options={"g": 100, "crf": 10, "bf": 0})
    content = bytearray(path.read_bytes())
    middle = len(content) * 8 // 10
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    prepare(replaced(listing, 1, path), tmp_path / "damaged", SMALL, num_workers=1)
    prepare(replaced(listing, 1, None), tmp_path / "missing", SMALL, num_workers=1)
    assert [row[1] for row in skipped(tmp_path / "damaged")] == ["decode"]
    assert shards(tmp_path / "damaged") == shards(tmp_path / "missing")


def test_retry_skipped_tries_the_failed_ones_alone_and_ends_as_if_nothing_had_been(
    tmp_path, listing, undisturbed, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setenv("RESPIKE_FAULTS", f"decode:{GUILTY}=kill;decode:jump/v01=kill")
    prepare(listing, out, SMALL, num_workers=2)
    assert len(skipped(out)) == 2
    shard_of_other = next(m for m in marks(out) if "jump/v01.mp4" in [row["video"] for row in m["skipped"]])
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    # one of the two still fails, and whatever else would be decoded would fail as well
    others = [v.video_id for v in listing.videos if v.video_id not in shard_members(out, GUILTY, listing)]
    monkeypatch.setenv("RESPIKE_FAULTS", ";".join(f"decode:{video}=segfault" for video in others))
    summary = prepare(listing, out, SMALL, num_workers=2, existing="retry-skipped")
    assert [row[0] for row in skipped(out)] == ["jump/v01.mp4"]
    assert skipped(out)[0][2].endswith("signal 11")
    assert summary.num_built == 1
    touched = {path.name for path in out.glob("*.tar") if path.stat().st_mtime_ns != before[path.name]}
    assert len(touched) == 1
    assert shard_of_other["shard"]["name"] not in touched
    monkeypatch.delenv("RESPIKE_FAULTS")
    assert prepare(listing, out, SMALL, num_workers=1).num_built == 0
    prepare(listing, out, SMALL, num_workers=2, existing="retry-skipped")
    assert contents(out) == undisturbed


def marks(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((out / ".respike" / "done").glob("*.json"))]


def shard_members(out: Path, video_id: str, listing) -> set[str]:
    """The videos of the shard that a video belongs to."""
    for mark in marks(out):
        members = {row["video"] for row in [*mark["videos"], *mark["skipped"]]}
        if video_id in members:
            return members
    raise AssertionError(video_id)


def test_keep_partial_can_be_turned_on_for_what_was_skipped(tmp_path, listing, half_file):
    with_half, partial = replaced(listing, 1, half_file), dataclasses.replace(SMALL, keep_partial=True)
    out = tmp_path / "out"
    prepare(with_half, out, SMALL, num_workers=1)
    with pytest.raises(RespikeError, match="keep_partial False → True") as error:
        prepare(with_half, out, partial, num_workers=1)
    assert "--retry-skipped" in error.value.hint
    summary = prepare(with_half, out, partial, num_workers=1, existing="retry-skipped")
    assert summary.num_built == 1
    prepare(with_half, tmp_path / "fresh", partial, num_workers=1)
    assert contents(out) == contents(tmp_path / "fresh")
    with pytest.raises(RespikeError, match="keep_partial True → False") as error:
        prepare(with_half, out, SMALL, num_workers=1, existing="retry-skipped")
    assert "--retry-skipped" not in error.value.hint


def test_turning_keep_partial_on_survives_being_stopped(tmp_path, listing, half_file, monkeypatch):
    with_half, partial = replaced(listing, 1, half_file), dataclasses.replace(SMALL, keep_partial=True)
    out = tmp_path / "out"
    prepare(with_half, out, SMALL, num_workers=1)
    monkeypatch.setenv("RESPIKE_FAULTS", "fsync:.tar=disk-full")
    with pytest.raises(RespikeError, match="No space left"):
        prepare(with_half, out, partial, num_workers=1, existing="retry-skipped")
    monkeypatch.delenv("RESPIKE_FAULTS")
    prepare(with_half, out, partial, num_workers=1)
    prepare(with_half, tmp_path / "fresh", partial, num_workers=1)
    assert contents(out) == contents(tmp_path / "fresh")


def test_overwrite_makes_all_anew_and_touches_nothing_else(tmp_path, listing, undisturbed):
    out = tmp_path / "out"
    prepare(listing, out, dataclasses.replace(SMALL, threshold=16), num_workers=1)
    (out / "notes.txt").write_text("mine")
    summary = prepare(listing, out, SMALL, num_workers=1, existing="overwrite")
    assert summary.num_built == 5
    assert contents(out) == undisturbed | {"notes.txt": b"mine"}


@pytest.mark.parametrize("existing", ["resume", "overwrite"])
@pytest.mark.parametrize("name", ["README.md", "dataset.json", "train-000000.tar"])
def test_what_respike_did_not_write_is_never_replaced(tmp_path, listing, existing, name):
    out = tmp_path / "project"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(RespikeError, match=f"holds {name}, and respike keeps no record"):
        prepare(listing, out, SMALL, num_workers=1, existing=existing)
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "mine"}


def test_a_video_that_trips_a_library_is_skipped_with_its_error(tmp_path, listing):
    # the shape of a frame in the middle changes to one that no JPEG may have
    path = tmp_path / "narrow.mkv"
    write_video(path, iter(moving_square(4, width=20000, height=16)), codec="ffv1")
    settings = dataclasses.replace(SMALL, short_side=16)
    prepare(replaced(listing, 1, path), tmp_path / "out", settings, num_workers=1)
    assert read_index(tmp_path / "out").num_written + len(skipped(tmp_path / "out")) == 12


# --- one run in parts


def test_parts_joined_are_one_run(tmp_path, listing, undisturbed):
    out = tmp_path / "out"
    for number in (3, 1):
        summary = prepare(listing, out, SMALL, num_workers=1, part=Part(number=number, count=3))
        assert summary.listed == summary.written < 12
        assert not (out / "dataset.json").exists()
    unfinished = "2 of 5 shards of .* are not finished: train-000000.tar, train-000003.tar"
    with pytest.raises(RespikeError, match=unfinished) as error:
        join_parts(out)
    assert error.value.hint == "run again with --part 2/3"
    prepare(listing, out, SMALL, num_workers=1, part=Part(number=2, count=3))
    summary = join_parts(out)
    assert (summary.listed, summary.written, summary.num_shards) == (12, 12, 5)
    assert contents(out) == undisturbed


def test_more_parts_than_shards_are_fine(tmp_path, listing, undisturbed):
    for number in range(1, 8):
        prepare(listing, tmp_path / "out", SMALL, num_workers=1, part=Part(number=number, count=7))
    join_parts(tmp_path / "out")
    assert contents(tmp_path / "out") == undisturbed


def test_an_index_that_was_lost_is_made_again(tmp_path, listing, undisturbed):
    prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    for name in ("dataset.json", "videos.jsonl", "README.md"):
        (tmp_path / "out" / name).unlink()
    join_parts(tmp_path / "out")
    assert contents(tmp_path / "out") == undisturbed


def test_there_is_nothing_to_join_where_nothing_was_prepared(tmp_path):
    with pytest.raises(RespikeError, match="holds no run"):
        join_parts(tmp_path)
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
from respike.data.plan import Part
from respike.data.output import OutputState
state = OutputState(Path(sys.argv[1]))
state.make()
part = Part(number=int(sys.argv[2]), count=int(sys.argv[3])) if len(sys.argv) > 2 else None
with state.lock(part):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("held", "wanted", "is_free"),
    [
        ((), None, False),
        ((), Part(number=1, count=2), False),
        ((1, 2), None, False),
        ((1, 2), Part(number=1, count=2), False),
        ((1, 2), Part(number=1, count=3), False),
        ((1, 2), Part(number=2, count=2), True),
    ],
)
def test_two_runs_share_a_folder_only_as_different_parts_of_one_count(tmp_path, listing, held, wanted, is_free):
    command = [sys.executable, "-c", HOLD, tmp_path / "out", *map(str, held)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        try:
            assert owner.stdout.readline() == "held\n"
            started = time.monotonic()
            if is_free:
                prepare(listing, tmp_path / "out", SMALL, num_workers=1, part=wanted)
            else:
                with pytest.raises(RespikeError, match=f"is in use: process {owner.pid} on "):
                    prepare(listing, tmp_path / "out", SMALL, num_workers=1, part=wanted)
                assert time.monotonic() - started < 5
        finally:
            owner.kill()
    # what a dead process left is taken over
    prepare(listing, tmp_path / "out", SMALL, num_workers=1, part=wanted)


def test_parts_of_other_settings_do_not_mix(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, num_workers=1, part=Part(number=1, count=2))
    other = dataclasses.replace(SMALL, threshold=9)
    with pytest.raises(RespikeError, match="threshold 8 → 9"):
        prepare(listing, tmp_path / "out", other, num_workers=1, part=Part(number=2, count=2))


# --- memory and time


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
from respike.data.preparation import PrepareSettings, prepare
from tests.conftest import listing_of
local.MAX_ITEMS_A_WORKER = 10**9
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
settings = PrepareSettings(videos_per_shard=20)
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


def test_a_decoder_that_leaks_cannot_fill_memory(tmp_path, listing, undisturbed, monkeypatch):
    # each video leaks 30 MB, so that a shard of three is over the limit
    monkeypatch.setenv("RESPIKE_FAULTS", "decode=leak")
    monkeypatch.setattr(local, "MAX_WORKER_BYTES", 150_000_000)
    started = []
    child = local.Child
    monkeypatch.setattr(local, "Child", lambda: started.append(1) or child())
    prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    assert len(started) >= 4
    assert contents(tmp_path / "out") == undisturbed


def test_a_long_video_is_never_held_whole(tmp_path):
    """Memory of a worker at a video of 1,500 frames is that at one of 100, whatever the clips weigh together."""
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
from respike.data.prepare_config import PrepareSettings
from tests.conftest import listing_of
out = Path(sys.argv[2])
(out / ".respike/done").mkdir(parents=True)
(task,) = plan_shards(listing_of(Path(sys.argv[1])), out, PrepareSettings())
build_shard(task, lambda note: None).settle()
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
