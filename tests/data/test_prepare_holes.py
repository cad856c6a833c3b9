"""Prepare promises that nothing in its own folder, however it came there, is taken for finished work that it is not."""

import dataclasses
import errno
from contextlib import contextmanager

import pytest
from respike.common.errors import RespikeError
from respike.common.files import write_atomically
from respike.data import clip_encoder, event_codec, shard_worker, video_check, video_reader
from respike.data import preparation as module
from respike.data.executors import base
from respike.data.output import OutputState
from respike.data.preparation import Part, join_parts, prepare
from respike.data.verification import verify

from tests.conftest import contents
from tests.data.conftest import SMALL


def without(listing, *numbers):
    videos = [video for number, video in enumerate(listing.videos) if number not in numbers]
    return dataclasses.replace(listing, videos=tuple(videos))


def missing(listing, *numbers):
    videos = [
        dataclasses.replace(video, path=None) if number in numbers else video
        for number, video in enumerate(listing.videos)
    ]
    return dataclasses.replace(listing, videos=tuple(videos))


def marks(out):
    return sorted((out / ".respike" / "done").iterdir())


@pytest.mark.parametrize(
    ("before", "after"),
    [('"label":1', '"label":0'), ('"num_clips":2', '"num_clips":3'), ('"skipped":[]', '"skipped":5 ')],
)
def test_a_changed_finished_mark_is_not_believed(tmp_path, listing, undisturbed, before, after):
    prepare(listing, tmp_path / "out", SMALL, engine=base.run)
    for mark in marks(tmp_path / "out"):
        text = mark.read_text()
        mark.write_text(text.replace(before, after).replace(before.replace(":", ": "), after.replace(":", ": ")))
    prepare(listing, tmp_path / "out", SMALL, engine=base.run)
    assert contents(tmp_path / "out") == undisturbed


def test_no_mark_of_the_old_shard_stands_beside_the_new_one(tmp_path, listing, monkeypatch):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, engine=base.run)
    (other := tmp_path / "other.mp4").write_bytes(listing.videos[0].path.read_bytes())
    videos = (dataclasses.replace(listing.videos[0], path=other), *listing.videos[1:])

    def fail(path, content):
        if path.name.endswith(".tar.json"):
            raise RespikeError("stopped before the mark", "")
        write_atomically(path, content)

    monkeypatch.setattr(shard_worker, "write_atomically", fail)
    with pytest.raises(RespikeError, match="stopped before the mark"):
        prepare(dataclasses.replace(listing, videos=videos), out, SMALL, engine=base.run)
    # the first has the new shard and no mark; all others have both as they were
    assert len(marks(out)) == len(list(out.glob("*.tar"))) - 1


def test_parts_of_which_one_was_made_anew_with_keep_partial_do_not_join_before_all_were(tmp_path, listing):
    listing, out = missing(listing, *range(0, 12, 3)), tmp_path / "out"
    for number in (1, 2):
        prepare(listing, out, SMALL, part=Part(number=number, count=2), engine=base.run)
    settings = dataclasses.replace(SMALL, keep_partial=True)
    again = {"existing": "retry-skipped", "engine": base.run}
    prepare(listing, out, settings, part=Part(number=1, count=2), **again)
    with pytest.raises(RespikeError, match="is not finished"):
        join_parts(out)
    prepare(listing, out, settings, part=Part(number=2, count=2), **again)
    join_parts(out)
    prepare(listing, tmp_path / "one", settings, engine=base.run)
    assert contents(out) == contents(tmp_path / "one")


def test_a_video_that_the_disk_does_not_give_is_skipped_alone(tmp_path, listing, monkeypatch):
    real = clip_encoder.probe

    def probe(path, **options):
        if path == listing.videos[3].path:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, **options)

    monkeypatch.setattr(clip_encoder, "probe", probe)
    summary = prepare(listing, tmp_path / "out", SMALL, engine=base.run)
    assert [(video.video, video.stage, video.reason) for video in summary.skipped_videos] == [
        (listing.videos[3].video_id, "read", "Input/output error")
    ]


def test_a_disk_that_takes_no_more_is_no_fault_of_the_video(tmp_path, listing, monkeypatch):
    def add(self, key, members):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_worker.ShardWriter, "add", add)
    with pytest.raises(RespikeError, match=r"cannot write .*\.tar: No space left"):
        prepare(listing, tmp_path / "out", SMALL, engine=base.run)


def test_a_shard_without_a_mark_of_an_earlier_plan_does_not_stay(tmp_path, listing, undisturbed):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, engine=base.run)
    # killed between the shard and its mark, then listed anew with fewer videos
    (out / "train-000007.tar").write_bytes(b"a shard of yesterday")
    (out / "train-notes.tar").write_bytes(b"not a name of ours")
    prepare(listing, out, SMALL, engine=base.run)
    assert contents(out) == undisturbed | {"train-notes.tar": b"not a name of ours"}


def test_a_shard_of_links_to_nothing_is_skipped_and_not_the_end_of_the_run(tmp_path, listing):
    (link := tmp_path / "link.mp4").symlink_to(tmp_path / "nothing.mp4")
    videos = (dataclasses.replace(listing.videos[0], path=link), *listing.videos[1:])
    settings = dataclasses.replace(SMALL, videos_per_shard=1)
    summary = prepare(dataclasses.replace(listing, videos=videos), tmp_path / "out", settings, engine=base.run)
    assert [(video.video, video.stage) for video in summary.skipped_videos] == [(listing.videos[0].video_id, "missing")]


def test_joining_goes_by_the_plan_that_stands_once_it_has_the_lock(tmp_path, listing, monkeypatch):
    out, fewer = tmp_path / "out", without(listing, 2)
    prepare(listing, out, SMALL, engine=base.run)
    real = OutputState.lock

    @contextmanager
    def lock(self, part=None):
        # another run that was quicker
        monkeypatch.setattr(OutputState, "lock", real)
        prepare(fewer, out, SMALL, engine=base.run)
        with real(self, part):
            yield

    monkeypatch.setattr(OutputState, "lock", lock)
    assert join_parts(out).listed == len(fewer.videos)
    assert not verify(out).faults


@pytest.mark.parametrize("name", ["settings.json", "plan.json"])
@pytest.mark.parametrize("content", ["[]", "{}", "7"])
def test_a_record_of_the_folder_that_makes_no_sense_is_one_error(tmp_path, listing, name, content):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, engine=base.run)
    (out / ".respike" / name).write_text(content)
    with pytest.raises(RespikeError, match=name):
        join_parts(out)
    if name == "settings.json":
        with pytest.raises(RespikeError):
            prepare(listing, out, SMALL, engine=base.run)


def test_a_clip_too_large_to_be_read_again_is_skipped_when_it_is_written(tmp_path, listing, monkeypatch):
    monkeypatch.setattr(event_codec, "MAX_EVENT_BYTES", 10_000)
    with pytest.raises(RespikeError, match=r"none of the 12 .*encode: .*10,000"):
        prepare(listing, tmp_path / "out", SMALL, engine=base.run)


def test_a_check_tells_of_a_video_that_the_disk_does_not_give(tmp_path, listing, monkeypatch):
    def find_cut(path, format_name):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(video_reader, "find_cut", find_cut)
    found = video_check.check_videos(video_check.CheckTask(videos=listing.videos[:1], full=False), lambda note: None)
    assert [(fault.stage, fault.reason) for fault in found] == [("open", "Input/output error")]


def test_no_index_ever_promises_a_shard_that_a_shorter_listing_removed(tmp_path, listing, monkeypatch):
    out = tmp_path / "out"
    prepare(listing, out, SMALL, engine=base.run)
    train_alone = tuple(video for video in listing.videos if video.subset == "train")

    def stop(*arguments):
        raise RespikeError("stopped before the index", "")

    monkeypatch.setattr(module, "write_index", stop)
    with pytest.raises(RespikeError, match="stopped before the index"):
        prepare(dataclasses.replace(listing, videos=train_alone), out, SMALL, engine=base.run)
    assert not list(out.glob("test-*.tar"))
    assert not (out / "dataset.json").exists()
