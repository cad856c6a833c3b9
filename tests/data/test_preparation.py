"""Prepare: the same bytes however a run got there, finished work kept, and folders and parts never mixed."""

import dataclasses
import getpass
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from respike.common.errors import MismatchError, RespikeError, SettingError, ShardError
from respike.common.files import write_atomically
from respike.data import preparation, shard_worker
from respike.data.dataset import open_shards
from respike.data.executors.base import run_serially
from respike.data.index import read_index
from respike.data.output import OutputState
from respike.data.preparation import Part, PrepareConfig, join_parts, plan_shards, prepare
from respike.data.verification import verify
from respike.data.video_reader import Decoding

from tests.conftest import contents
from tests.data.conftest import SMALL, replaced, skipped

ROOT = Path(__file__).parents[2]
CRASHING = "wave/v02.mp4"


def remove_videos(listing, *numbers):
    videos = [video for number, video in enumerate(listing.videos) if number not in numbers]
    return dataclasses.replace(listing, videos=tuple(videos))


def without_files(listing, *numbers):
    videos = [
        dataclasses.replace(video, path=None) if number in numbers else video
        for number, video in enumerate(listing.videos)
    ]
    return dataclasses.replace(listing, videos=tuple(videos))


def test_one_worker_and_two_write_the_same_bytes(tmp_path, listing):
    one = prepare(listing, tmp_path / "one", SMALL, num_workers=1)
    two = prepare(listing, tmp_path / "two", SMALL, num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (one.listed, one.written, one.skipped, one.num_clips) == (12, 12, 0, 24)
    assert dataclasses.replace(one, out=two.out, seconds=0, speed=two.speed) == dataclasses.replace(two, seconds=0)


def test_a_missing_video_changes_only_its_shard(tmp_path, listing):
    prepare(listing, tmp_path / "whole", SMALL, executor=run_serially)
    prepare(replaced(listing, 0, None), tmp_path / "holed", SMALL, executor=run_serially)
    whole, holed = contents(tmp_path / "whole"), contents(tmp_path / "holed")
    assert sum(whole[name] != holed[name] for name in whole if name.endswith(".tar")) == 1


def test_shards_are_planned_by_subset_and_seed(listing, tmp_path):
    tasks = plan_shards(listing, tmp_path, SMALL)
    assert [task.name for task in tasks] == ["test-000000.tar", *(f"train-{n:06d}.tar" for n in range(4))]
    assert sorted(video.video_id for task in tasks for video in task.videos) == sorted(
        video.video_id for video in listing.videos
    )
    other = plan_shards(listing, tmp_path, dataclasses.replace(SMALL, seed=1))
    assert [task.videos for task in other] != [task.videos for task in tasks]


def test_threshold_one_restores_every_frame(tmp_path, listing):
    settings = dataclasses.replace(SMALL, threshold=1, color="rgb", key_quality=100)
    prepare(listing, tmp_path / "out", settings, executor=run_serially)
    dataset = open_shards(tmp_path / "out")
    clip = dataset[0]
    video = next(video for video in listing.videos if video.video_id == clip.info.video)
    frames = np.stack([np.stack(frame.planes) for frame in Decoding(video.path, color="rgb", short_side=32).frames()])[
        list(clip.info.frame_indices)
    ]
    groups = frames.reshape(4, 4, *frames.shape[1:]).astype(np.int16)
    np.testing.assert_array_equal(clip.residuals(), groups[:, 1:] - groups[:, :1])
    assert np.abs(clip.to_frames().astype(int) - frames).mean() < 3


def test_the_output_holds_nothing_of_this_machine(tmp_path, listing, video_folder):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    for content in contents(tmp_path / "out").values():
        assert str(video_folder).encode() not in content
        assert getpass.getuser().encode() not in content


def test_an_unreadable_video_is_skipped_and_recorded(tmp_path, listing):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with_faults = replaced(replaced(listing, 1, broken), 4, None)
    summary = prepare(with_faults, tmp_path / "out", SMALL, executor=run_serially)
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


def test_strict_raises_after_everything_else_is_written(tmp_path, listing):
    with pytest.raises(RespikeError, match="videos skipped: 1 of 12"):
        prepare(replaced(listing, 0, None), tmp_path / "out", SMALL, executor=run_serially, strict=True)
    assert read_index(tmp_path / "out").num_written == 11


def test_no_readable_video_is_an_error_that_names_one(tmp_path, listing):
    missing = dataclasses.replace(
        listing, videos=tuple(dataclasses.replace(video, path=None) for video in listing.videos)
    )
    with pytest.raises(RespikeError, match="no video could be read of 12 listed videos"):
        prepare(missing, tmp_path / "out", SMALL, executor=run_serially)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", 1), ("stride", 5), ("threshold", 0), ("key_quality", 101), ("color", "hsv"), ("videos_per_shard", 0)],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(SettingError, match=name):
        PrepareConfig(**{name: value})


def test_a_second_run_changes_nothing(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    before = contents(tmp_path / "out")
    again = prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    assert again.num_built == 0
    assert contents(tmp_path / "out") == before


def test_only_damaged_and_missing_shards_are_made_again(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    before = contents(tmp_path / "out")
    victim = tmp_path / "out" / "train-000001.tar"
    victim.write_bytes(victim.read_bytes()[:-512])
    (tmp_path / "out" / "test-000000.tar").unlink()
    assert prepare(listing, tmp_path / "out", SMALL, executor=run_serially).num_built == 2
    assert contents(tmp_path / "out") == before


def test_the_shard_of_a_changed_video_is_made_again(tmp_path, listing):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(listing.videos[0].path.read_bytes())
    changed = replaced(listing, 0, copy)
    prepare(changed, tmp_path / "out", SMALL, executor=run_serially)
    copy.write_bytes(listing.videos[2].path.read_bytes())
    assert prepare(changed, tmp_path / "out", SMALL, executor=run_serially).num_built == 1
    prepare(changed, tmp_path / "fresh", SMALL, executor=run_serially)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_other_settings_are_refused_and_named(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    before = contents(tmp_path / "out")
    with pytest.raises(MismatchError, match="threshold 8 → 16"):
        prepare(listing, tmp_path / "out", dataclasses.replace(SMALL, threshold=16), executor=run_serially)
    assert contents(tmp_path / "out") == before


def test_shards_of_an_earlier_format_are_kept(tmp_path, listing):
    prepare(listing, out := tmp_path / "out", SMALL, executor=run_serially)
    settings_path = out / ".respike" / "settings.json"
    settings = json.loads(settings_path.read_text())
    del settings["format_version"]
    settings_path.write_text(json.dumps(settings))
    before = contents(out)
    with pytest.raises(MismatchError, match="format_version 1 → 2") as raised:
        prepare(listing, out, SMALL, executor=run_serially)
    assert raised.value.hint.startswith("its finished shards can still be read")
    assert contents(out) == before
    join_parts(out)
    assert read_index(out).num_clips
    assert json.loads((out / "dataset.json").read_text())["format_version"] == 1
    prepare(listing, out, SMALL, executor=run_serially, existing="overwrite")
    assert json.loads((out / "dataset.json").read_text())["format_version"] == 2


def test_eval_clips_is_recorded_only_if_it_is_not_one(tmp_path, listing):
    one = dataclasses.replace(SMALL, sampling="uniform")
    prepare(listing, tmp_path / "one", one, executor=run_serially)
    # a set of a version without this setting does not record it, and is kept
    assert "eval_clips" not in (tmp_path / "one" / "dataset.json").read_text()
    assert prepare(listing, tmp_path / "one", one, executor=run_serially).num_built == 0
    several = dataclasses.replace(one, eval_clips=3)
    with pytest.raises(MismatchError, match="eval_clips 1 → 3"):
        prepare(listing, tmp_path / "one", several, executor=run_serially)
    prepare(listing, tmp_path / "three", several, executor=run_serially)
    with pytest.raises(MismatchError, match="eval_clips 3 → 1"):
        prepare(listing, tmp_path / "three", one, executor=run_serially)
    sets = [read_index(tmp_path / name) for name in ("one", "three")]
    assert sets[0].spec.fingerprint != sets[1].spec.fingerprint
    clips = [{video.video: video.num_clips for video in found.videos if video.subset == "test"} for found in sets]
    assert set(clips[0].values()) == {1}
    assert set(clips[1].values()) == {3}


def test_retry_skipped_tries_only_the_skipped_videos(tmp_path, listing, undisturbed, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setenv("RESPIKE_FAULTS", f"decode:{CRASHING}=kill;decode:jump/v01=kill")
    prepare(listing, out, SMALL, num_workers=2)
    assert len(skipped(out)) == 2
    shard_of_other = next(m for m in manifests(out) if "jump/v01.mp4" in [row["video"] for row in m["skipped"]])
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    # one of the two still fails, and any other video would fail too
    others = [v.video_id for v in listing.videos if v.video_id not in shard_members(out, CRASHING, listing)]
    monkeypatch.setenv("RESPIKE_FAULTS", ";".join(f"decode:{video}=segfault" for video in others))
    summary = prepare(listing, out, SMALL, num_workers=2, existing="retry-skipped")
    assert [row[0] for row in skipped(out)] == ["jump/v01.mp4"]
    assert skipped(out)[0][2].endswith("signal 11")
    assert summary.num_built == 1
    touched = {path.name for path in out.glob("*.tar") if path.stat().st_mtime_ns != before[path.name]}
    assert len(touched) == 1
    assert shard_of_other["shard"]["name"] not in touched
    monkeypatch.delenv("RESPIKE_FAULTS")
    assert prepare(listing, out, SMALL, executor=run_serially).num_built == 0
    prepare(listing, out, SMALL, executor=run_serially, existing="retry-skipped")
    assert contents(out) == undisturbed


def manifest_paths(out: Path) -> list[Path]:
    return sorted((out / ".respike" / "done").glob("*.json"))


def manifests(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in manifest_paths(out)]


def shard_members(out: Path, video_id: str, listing) -> set[str]:
    """The videos of the shard that holds a video."""
    for manifest in manifests(out):
        members = {row["video"] for row in [*manifest["videos"], *manifest["skipped"]]}
        if video_id in members:
            return members
    raise AssertionError(video_id)


def test_retry_skipped_can_turn_keep_partial_on(tmp_path, listing, half_file):
    with_half, partial = replaced(listing, 1, half_file), dataclasses.replace(SMALL, keep_partial=True)
    out = tmp_path / "out"
    prepare(with_half, out, SMALL, executor=run_serially)
    with pytest.raises(RespikeError, match="keep_partial False → True") as error:
        prepare(with_half, out, partial, executor=run_serially)
    assert "retry-skipped" in error.value.hint
    summary = prepare(with_half, out, partial, executor=run_serially, existing="retry-skipped")
    assert summary.num_built == 1
    prepare(with_half, tmp_path / "fresh", partial, executor=run_serially)
    assert contents(out) == contents(tmp_path / "fresh")
    with pytest.raises(RespikeError, match="keep_partial True → False") as error:
        prepare(with_half, out, SMALL, executor=run_serially, existing="retry-skipped")
    assert "retry-skipped" not in error.value.hint


def test_turning_keep_partial_on_survives_a_stop(tmp_path, listing, half_file, monkeypatch):
    with_half, partial = replaced(listing, 1, half_file), dataclasses.replace(SMALL, keep_partial=True)
    out = tmp_path / "out"
    prepare(with_half, out, SMALL, executor=run_serially)
    monkeypatch.setenv("RESPIKE_FAULTS", "fsync:.tar=disk-full")
    with pytest.raises(RespikeError, match="No space left"):
        prepare(with_half, out, partial, num_workers=1, existing="retry-skipped")
    monkeypatch.delenv("RESPIKE_FAULTS")
    prepare(with_half, out, partial, executor=run_serially)
    prepare(with_half, tmp_path / "fresh", partial, executor=run_serially)
    assert contents(out) == contents(tmp_path / "fresh")


def test_overwrite_replaces_only_files_of_respike(tmp_path, listing, undisturbed):
    out = tmp_path / "out"
    prepare(listing, out, dataclasses.replace(SMALL, threshold=16), executor=run_serially)
    (out / "notes.txt").write_text("mine")
    summary = prepare(listing, out, SMALL, executor=run_serially, existing="overwrite")
    assert summary.num_built == 5
    assert contents(out) == undisturbed | {"notes.txt": b"mine"}


def test_no_index_lists_a_shard_that_was_removed(tmp_path, listing, monkeypatch):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, executor=run_serially)
    train_alone = tuple(video for video in listing.videos if video.subset == "train")

    def stop(*arguments):
        raise RespikeError("stopped before the index", "")

    monkeypatch.setattr(preparation, "write_index", stop)
    with pytest.raises(RespikeError, match="stopped before the index"):
        prepare(dataclasses.replace(listing, videos=train_alone), out, SMALL, executor=run_serially)
    assert not list(out.glob("test-*.tar"))
    assert not (out / "dataset.json").exists()


def test_a_shard_of_an_earlier_plan_is_removed(tmp_path, listing, undisturbed):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, executor=run_serially)
    # killed between the shard and its manifest, then listed again with fewer videos
    (out / "train-000007.tar").write_bytes(b"a shard of yesterday")
    (out / "train-notes.tar").write_bytes(b"not a name of ours")
    prepare(listing, out, SMALL, executor=run_serially)
    assert contents(out) == undisturbed | {"train-notes.tar": b"not a name of ours"}


@pytest.mark.parametrize(
    ("before", "after"),
    [('"label":1', '"label":0'), ('"num_clips":2', '"num_clips":3'), ('"skipped":[]', '"skipped":5 ')],
)
def test_the_shard_of_a_changed_manifest_is_made_again(tmp_path, listing, undisturbed, before, after):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    for manifest in manifest_paths(tmp_path / "out"):
        text = manifest.read_text()
        manifest.write_text(text.replace(before, after).replace(before.replace(":", ": "), after.replace(":", ": ")))
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    assert contents(tmp_path / "out") == undisturbed


def test_an_old_manifest_is_never_beside_a_new_shard(tmp_path, listing, monkeypatch):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, executor=run_serially)
    (other := tmp_path / "other.mp4").write_bytes(listing.videos[0].path.read_bytes())
    videos = (dataclasses.replace(listing.videos[0], path=other), *listing.videos[1:])

    def fail(path, content):
        if path.name.endswith(".tar.json"):
            raise RespikeError("stopped before the manifest", "")
        write_atomically(path, content)

    monkeypatch.setattr(shard_worker, "write_atomically", fail)
    with pytest.raises(RespikeError, match="stopped before the manifest"):
        prepare(dataclasses.replace(listing, videos=videos), out, SMALL, executor=run_serially)
    # the first shard is new and has no manifest; all others have both as before
    assert len(manifest_paths(out)) == len(list(out.glob("*.tar"))) - 1


@pytest.mark.parametrize("existing", ["resume", "overwrite"])
@pytest.mark.parametrize("name", ["README.md", "dataset.json", "train-000000.tar"])
def test_files_of_others_are_never_replaced(tmp_path, listing, existing, name):
    out = tmp_path / "project"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(RespikeError, match=f"holds {name}, and there is no record"):
        prepare(listing, out, SMALL, executor=run_serially, existing=existing)
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "mine"}


def test_joined_parts_have_the_bytes_of_one_run(tmp_path, listing, undisturbed):
    out = tmp_path / "out"
    for number in (3, 1):
        summary = prepare(listing, out, SMALL, executor=run_serially, part=Part(number=number, count=3))
        assert summary.listed == summary.written < 12
        assert not (out / "dataset.json").exists()
    unfinished = "shards of .* are not finished: 2 of 5, train-000000.tar, train-000003.tar"
    with pytest.raises(RespikeError, match=unfinished) as error:
        join_parts(out)
    assert error.value.hint == "prepare these parts: 2/3"
    prepare(listing, out, SMALL, executor=run_serially, part=Part(number=2, count=3))
    summary = join_parts(out)
    assert (summary.listed, summary.written, summary.num_shards) == (12, 12, 5)
    assert contents(out) == undisturbed


def test_there_may_be_more_parts_than_shards(tmp_path, listing, undisturbed):
    for number in range(1, 8):
        prepare(listing, tmp_path / "out", SMALL, executor=run_serially, part=Part(number=number, count=7))
    join_parts(tmp_path / "out")
    assert contents(tmp_path / "out") == undisturbed


def test_join_parts_writes_a_lost_index_again(tmp_path, listing, undisturbed):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    for name in ("dataset.json", "videos.jsonl", "README.md"):
        (tmp_path / "out" / name).unlink()
    join_parts(tmp_path / "out")
    assert contents(tmp_path / "out") == undisturbed


def test_join_parts_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(RespikeError, match="is not the output of `respike prepare`"):
        join_parts(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_parts_with_different_keep_partial_do_not_join(tmp_path, listing):
    listing, out = without_files(listing, *range(0, 12, 3)), tmp_path / "out"
    for number in (1, 2):
        prepare(listing, out, SMALL, part=Part(number=number, count=2), executor=run_serially)
    settings = dataclasses.replace(SMALL, keep_partial=True)
    again = {"existing": "retry-skipped", "executor": run_serially}
    prepare(listing, out, settings, part=Part(number=1, count=2), **again)
    with pytest.raises(RespikeError, match="are not finished"):
        join_parts(out)
    prepare(listing, out, settings, part=Part(number=2, count=2), **again)
    join_parts(out)
    prepare(listing, tmp_path / "one", settings, executor=run_serially)
    assert contents(out) == contents(tmp_path / "one")


def test_join_parts_reads_the_plan_again_under_the_lock(tmp_path, listing, monkeypatch):
    out, fewer = tmp_path / "out", remove_videos(listing, 2)
    prepare(listing, out, SMALL, executor=run_serially)
    real = OutputState.lock

    @contextmanager
    def lock(self, part=None):
        # another run that was quicker
        monkeypatch.setattr(OutputState, "lock", real)
        prepare(fewer, out, SMALL, executor=run_serially)
        with real(self, part):
            yield

    monkeypatch.setattr(OutputState, "lock", lock)
    assert join_parts(out).listed == len(fewer.videos)
    assert not verify(out).faults


@pytest.mark.parametrize("name", ["settings.json", "plan.json"])
@pytest.mark.parametrize("content", ["[]", "{}", "7"])
def test_an_invalid_record_of_the_folder_is_an_error(tmp_path, listing, name, content):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, executor=run_serially)
    (out / ".respike" / name).write_text(content)
    with pytest.raises(RespikeError, match=name):
        join_parts(out)
    if name == "settings.json":
        with pytest.raises(RespikeError):
            prepare(listing, out, SMALL, executor=run_serially)


HOLD = """
import sys, time
from pathlib import Path
from respike.data.plan import Part
from respike.data.output import OutputState
state = OutputState(Path(sys.argv[1]))
state.create()
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
def test_only_different_parts_of_one_count_share_a_folder(tmp_path, listing, held, wanted, is_free):
    command = [sys.executable, "-c", HOLD, tmp_path / "out", *map(str, held)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        try:
            assert owner.stdout.readline() == "held\n"
            started = time.monotonic()
            if is_free:
                prepare(listing, tmp_path / "out", SMALL, executor=run_serially, part=wanted)
            else:
                with pytest.raises(RespikeError, match=f"is in use: process {owner.pid} on "):
                    prepare(listing, tmp_path / "out", SMALL, executor=run_serially, part=wanted)
                assert time.monotonic() - started < 5
        finally:
            owner.kill()
    # the lock of a dead process is taken over
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially, part=wanted)


def test_parts_of_other_settings_are_refused(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially, part=Part(number=1, count=2))
    other = dataclasses.replace(SMALL, threshold=9)
    with pytest.raises(RespikeError, match="threshold 8 → 9"):
        prepare(listing, tmp_path / "out", other, executor=run_serially, part=Part(number=2, count=2))


def test_a_changed_index_is_refused(tmp_path, listing):
    prepare(listing, tmp_path / "out", SMALL, executor=run_serially)
    index = tmp_path / "out" / "dataset.json"
    index.write_text(index.read_text().replace('"num_clips": 24', '"num_clips": 25'))
    with pytest.raises(ShardError, match="was changed"):
        open_shards(tmp_path / "out")
