"""Prepare promises: the same bytes however it got there, everything accounted for, finished work kept."""

import dataclasses
import getpass
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from respike.common.errors import MismatchError, RespikeError, SettingError, ShardError
from respike.common.files import folder_lock
from respike.data.dataset import open_shards
from respike.data.index import read_index
from respike.data.preparation import PrepareConfig, join_parts, plan_shards, prepare
from respike.data.video_reader import Decoding

from tests.conftest import contents
from tests.data.conftest import SMALL, replaced


def test_one_worker_and_two_write_the_same_bytes(tmp_path, listing):
    one = prepare(listing, tmp_path / "one", SMALL, num_workers=1)
    two = prepare(listing, tmp_path / "two", SMALL, num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (one.listed, one.written, one.skipped, one.num_clips) == (12, 12, 0, 24)
    assert dataclasses.replace(one, out=two.out, seconds=0, speed=two.speed) == dataclasses.replace(two, seconds=0)


def test_an_unreadable_video_is_skipped_recorded_and_counted(tmp_path, listing):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with_faults = replaced(replaced(listing, 1, broken), 4, None)
    summary = prepare(with_faults, tmp_path / "out", SMALL, num_workers=1)
    assert (summary.listed, summary.written, summary.skipped) == (12, 10, 2)
    rows = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {row["video"]: row["stage"] for row in rows} == {
        listing.videos[1].video_id: "open",
        listing.videos[4].video_id: "missing",
    }
    assert {row["video"]: row["subset"] for row in rows} == {
        listing.videos[number].video_id: listing.videos[number].subset for number in (1, 4)
    }
    assert {listing.videos[number].subset for number in (1, 4)} == {"train", "test"}
    assert {row.video for row in read_index(tmp_path / "out").videos}.isdisjoint(row["video"] for row in rows)


def test_a_hole_moves_nothing_else(tmp_path, listing):
    prepare(listing, tmp_path / "whole", SMALL, num_workers=1)
    prepare(replaced(listing, 0, None), tmp_path / "holed", SMALL, num_workers=1)
    whole, holed = contents(tmp_path / "whole"), contents(tmp_path / "holed")
    assert sum(whole[name] != holed[name] for name in whole if name.endswith(".tar")) == 1


def test_strict_makes_a_skipped_video_an_error_but_keeps_the_rest(tmp_path, listing):
    with pytest.raises(RespikeError, match="1 of 12 videos was skipped"):
        prepare(replaced(listing, 0, None), tmp_path / "out", SMALL, num_workers=1, strict=True)
    assert read_index(tmp_path / "out").num_written == 11


def test_nothing_readable_is_an_error_that_names_one(tmp_path, listing):
    missing = dataclasses.replace(
        listing, videos=tuple(dataclasses.replace(video, path=None) for video in listing.videos)
    )
    with pytest.raises(RespikeError, match="none of the 12 listed videos could be read"):
        prepare(missing, tmp_path / "out", SMALL, num_workers=1)


def test_a_second_run_builds_nothing_and_changes_nothing(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    before = contents(tmp_path / "out")
    again = prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    assert again.num_built == 0
    assert contents(tmp_path / "out") == before


def test_a_damaged_or_missing_shard_alone_is_rebuilt(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    before = contents(tmp_path / "out")
    victim = tmp_path / "out" / "train-000001.tar"
    victim.write_bytes(victim.read_bytes()[:-512])
    (tmp_path / "out" / "test-000000.tar").unlink()
    assert prepare(listing, tmp_path / "out", SMALL, num_workers=1).num_built == 2
    assert contents(tmp_path / "out") == before


def test_a_changed_video_is_done_again(tmp_path, listing):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(listing.videos[0].path.read_bytes())
    changed = replaced(listing, 0, copy)
    prepare(changed, tmp_path / "out", SMALL, num_workers=1)
    copy.write_bytes(listing.videos[2].path.read_bytes())
    assert prepare(changed, tmp_path / "out", SMALL, num_workers=1).num_built == 1
    prepare(changed, tmp_path / "fresh", SMALL, num_workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_other_settings_are_refused_and_named(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    before = contents(tmp_path / "out")
    with pytest.raises(MismatchError, match="threshold 8 → 16"):
        prepare(listing, tmp_path / "out", dataclasses.replace(SMALL, threshold=16), num_workers=1)
    assert contents(tmp_path / "out") == before


def test_shards_of_an_earlier_format_are_not_made_anew_unasked(tmp_path, listing):
    prepare(listing, out := tmp_path / "out", SMALL, num_workers=1)
    settings_path = out / ".respike" / "settings.json"
    settings = json.loads(settings_path.read_text())
    del settings["format_version"]
    settings_path.write_text(json.dumps(settings))
    before = contents(out)
    with pytest.raises(MismatchError, match="format_version 1 → 2") as raised:
        prepare(listing, out, SMALL, num_workers=1)
    assert raised.value.hint.startswith("what is finished there can still be read")
    assert contents(out) == before
    join_parts(out)
    assert read_index(out).num_clips
    assert json.loads((out / "dataset.json").read_text())["format_version"] == 1
    prepare(listing, out, SMALL, num_workers=1, existing="overwrite")
    assert json.loads((out / "dataset.json").read_text())["format_version"] == 2


def test_another_number_of_views_to_evaluate_is_another_setting_and_one_is_what_there_always_was(tmp_path, listing):
    one = dataclasses.replace(SMALL, sampling="uniform")
    prepare(listing, tmp_path / "one", one, num_workers=1)
    # a set from before the setting came to be says nothing of it, and is kept
    assert "eval_clips" not in (tmp_path / "one" / "dataset.json").read_text()
    assert prepare(listing, tmp_path / "one", one, num_workers=1).num_built == 0
    several = dataclasses.replace(one, eval_clips=3)
    with pytest.raises(MismatchError, match="eval_clips 1 → 3"):
        prepare(listing, tmp_path / "one", several, num_workers=1)
    prepare(listing, tmp_path / "three", several, num_workers=1)
    with pytest.raises(MismatchError, match="eval_clips 3 → 1"):
        prepare(listing, tmp_path / "three", one, num_workers=1)
    sets = [read_index(tmp_path / name) for name in ("one", "three")]
    assert sets[0].spec.fingerprint != sets[1].spec.fingerprint
    clips = [{video.video: video.num_clips for video in found.videos if video.subset == "test"} for found in sets]
    assert set(clips[0].values()) == {1}
    assert set(clips[1].values()) == {3}


def test_a_folder_in_use_is_refused_with_its_owner(tmp_path, listing):
    # the lock belongs to a process: another one must hold it
    script = (
        "import sys,time; from pathlib import Path; from respike.common.files import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), 'respike prepare'): print('held', flush=True); time.sleep(60)"
    )
    lock = tmp_path / "out" / ".respike" / "lock"
    with subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        started = time.monotonic()
        with pytest.raises(RespikeError, match=f"process {owner.pid}"):
            prepare(listing, tmp_path / "out", SMALL, num_workers=1)
        assert time.monotonic() - started < 5
        owner.kill()
    with folder_lock(lock, "taken over"):
        pass


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, listing, video_folder):
    program = tmp_path / "run.py"
    program.write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from respike.data.prepare import prepare
from tests.conftest import listing_of
from tests.data.conftest import SMALL
prepare(listing_of(Path({str(video_folder)!r})), Path(sys.argv[1]), SMALL, num_workers=1)
"""
    )
    out = tmp_path / "out"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, str(program), str(out)])
        before = len(list(out.glob(".respike/done/*.json"))) if out.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(out.glob(".respike/done/*.json"))) > before:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    summary = prepare(listing, out, SMALL, num_workers=1)
    assert summary.num_built < 5
    prepare(listing, tmp_path / "undisturbed", SMALL, num_workers=1)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_events_with_threshold_one_give_every_frame_back(tmp_path, listing):
    settings = dataclasses.replace(SMALL, threshold=1, color="rgb", key_quality=100)
    prepare(listing, tmp_path / "out", settings, num_workers=1)
    dataset = open_shards(tmp_path / "out")
    clip = dataset[0]
    video = next(video for video in listing.videos if video.video_id == clip.info.video)
    frames = np.stack([np.stack(frame.planes) for frame in Decoding(video.path, color="rgb", short_side=32).frames()])[
        list(clip.info.frame_indices)
    ]
    groups = frames.reshape(4, 4, *frames.shape[1:]).astype(np.int16)
    np.testing.assert_array_equal(clip.residuals(), groups[:, 1:] - groups[:, :1])
    assert np.abs(clip.to_frames().astype(int) - frames).mean() < 3


def test_plans_are_by_subset_and_seed(listing, tmp_path):
    tasks = plan_shards(listing, tmp_path, SMALL)
    assert [task.name for task in tasks] == ["test-000000.tar", *(f"train-{n:06d}.tar" for n in range(4))]
    assert sorted(video.video_id for task in tasks for video in task.videos) == sorted(
        video.video_id for video in listing.videos
    )
    other = plan_shards(listing, tmp_path, dataclasses.replace(SMALL, seed=1))
    assert [task.videos for task in other] != [task.videos for task in tasks]


@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", 1), ("stride", 5), ("threshold", 0), ("key_quality", 101), ("color", "hsv"), ("videos_per_shard", 0)],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(SettingError, match=name):
        PrepareConfig(**{name: value})


def test_an_edited_index_is_noticed(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    index = tmp_path / "out" / "dataset.json"
    index.write_text(index.read_text().replace('"num_clips": 24', '"num_clips": 25'))
    with pytest.raises(ShardError, match="was changed"):
        open_shards(tmp_path / "out")


def test_the_output_holds_nothing_of_this_machine(tmp_path, listing, video_folder):
    prepare(listing, tmp_path / "out", SMALL, num_workers=1)
    for content in contents(tmp_path / "out").values():
        assert str(video_folder).encode() not in content
        assert getpass.getuser().encode() not in content


def test_a_read_only_output_is_found_before_anything_is_decoded(tmp_path, listing):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RespikeError, match="cannot write"):
        prepare(listing, blocked / "out", SMALL, num_workers=1)
