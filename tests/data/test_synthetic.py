"""Synthetic videos: no single frame shows the motion, no event the subject; H.264 files that are kept after a stop."""

import dataclasses

import numpy as np
import pytest
from respike.common.errors import SettingError
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.synthetic import (
    HARD_MOTIONS,
    HARD_SUBJECTS,
    MOTIONS,
    PROPS,
    DemoSettings,
    choose_settings,
    demo_classes,
    draw_hard_scene,
    draw_scene,
    write_demo,
)
from respike.data.video_reader import Decoding

SMALL = DemoSettings(train_videos=1, train_scenes=2, test_videos=1, test_scenes=1)
TINY = DemoSettings(train_videos=1, train_scenes=1, test_videos=1, test_scenes=1, clip_length=2, size=16)
SIDE = 72
HALF = SIDE // 2


def luma(path):
    return np.stack([frame.planes[0] for frame in Decoding(path, color="ycc", short_side=256).frames()]).astype(int)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, SMALL, num_workers=2)
    return root


def test_every_class_has_its_videos_with_a_scene_a_clip(demo):
    for subset, num_scenes in (("train", 2), ("test", 1)):
        assert tuple(sorted(path.name for path in (demo / subset).iterdir())) == demo_classes()
        for path in (demo / subset).rglob("*.mp4"):
            assert len(luma(path)) == num_scenes * SMALL.clip_length


def test_scenes_are_cut_hard_at_clip_borders(demo):
    frames = luma(demo / "train" / "disc-left" / "00.mp4")
    changes = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
    assert int(changes.argmax()) == SMALL.clip_length - 1
    assert changes.max() > 3 * np.delete(changes, changes.argmax()).max()


def test_most_of_a_scene_is_still(demo):
    frames = luma(demo / "test" / "cross-right" / "00.mp4")
    assert (np.abs(frames[1:4] - frames[0]) >= 8).mean() < 0.3


def test_the_seed_decides_the_scene():
    same = [draw_scene("disc", "left", 8, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (draw_scene("disc", "left", 8, np.random.default_rng(4)) != same[0]).any()


def assert_motions_look_alike(scenes):
    """Check that mean pictures differ no more between motions than between two halves of one motion.

    `scenes` are the pictures of many scenes for each motion, `[motions, scenes, H, W, 3]`.
    """
    halves = [(np.mean(frames[::2], axis=0), np.mean(frames[1::2], axis=0)) for frames in scenes]
    within = np.mean([np.abs(one - other).mean() for one, other in halves])
    firsts = [one for one, _ in halves]
    between = np.mean([np.abs(one - other).mean() for one in firsts for other in firsts if one is not other])
    assert between < 1.25 * within


def test_single_frames_do_not_show_the_motion():
    moments = [0, 4, 12]
    scenes = np.array(
        [
            [draw_scene("square", motion, 13, np.random.default_rng([n, i]), 36)[moments] for i in range(120)]
            for n, motion in enumerate(MOTIONS)
        ]
    )
    for moment in range(len(moments)):
        assert_motions_look_alike(scenes[:, :, moment])


def test_finished_videos_are_not_made_again(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*.mp4")}
    write_demo(demo, SMALL)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*.mp4")} == before


def test_there_are_sixteen_classes():
    assert len(demo_classes()) == len(PROPS) * len(MOTIONS) == 16


def test_a_setting_below_one_is_named():
    with pytest.raises(SettingError, match="train_videos is 0"):
        DemoSettings(train_videos=0)


def stop(root):
    """Leave the folder as a stop would: the end was not reached."""
    (root / "demo.json").rename(root / ".begun.json")


def test_after_a_stop_finished_videos_of_the_same_settings_stay(tmp_path):
    write_demo(tmp_path, TINY)
    stop(tmp_path)
    finished, lost = tmp_path / "train" / "disc-left" / "00.mp4", tmp_path / "test" / "disc-left" / "00.mp4"
    content, written = lost.read_bytes(), finished.stat().st_mtime_ns
    lost.unlink()
    (lost.parent / ".00.mp4").write_bytes(content[:100])
    write_demo(tmp_path, TINY)
    assert finished.stat().st_mtime_ns == written
    assert lost.read_bytes() == content
    assert not list(tmp_path.rglob(".*"))
    # other settings
    stop(tmp_path)
    before = finished.read_bytes()
    write_demo(tmp_path, dataclasses.replace(TINY, seed=1))
    assert finished.read_bytes() != before


def draw(subject, motion, seed, num_frames=16, size=SIDE):
    return draw_hard_scene(subject, motion, num_frames, np.random.default_rng(seed), size).astype(int)


def quarters_that_change(frames):
    """Return for each quarter whether anything in it changes from one frame to the next."""
    changes = np.abs(np.diff(frames, axis=0)).sum(axis=(0, 3))
    return [changes[top : top + HALF, left : left + HALF].any() for top in (0, HALF) for left in (0, HALF)]


@pytest.mark.parametrize("motion", HARD_MOTIONS)
def test_events_do_not_show_the_subject(motion):
    amber, azure = (draw(subject, motion, 5) for subject in HARD_SUBJECTS)
    np.testing.assert_array_equal(amber - amber[0], azure - azure[0])
    assert (amber[0] != azure[0]).any()


def test_the_first_frame_is_the_same_for_every_motion():
    firsts = [draw("amber", motion, 6) for motion in HARD_MOTIONS]
    for frames in firsts[1:]:
        np.testing.assert_array_equal(frames[0], firsts[0][0])
        assert (frames[1:] != firsts[0][1:]).any()


def test_single_hard_frames_do_not_show_the_motion():
    assert_motions_look_alike(
        [[draw("azure", motion, [n, i], 8, size=36)[7] for i in range(60)] for n, motion in enumerate(HARD_MOTIONS)]
    )


@pytest.mark.parametrize("seed", range(4))
def test_three_things_change_and_one_quarter_is_empty(seed):
    assert sorted(quarters_that_change(draw("amber", "left", seed))) == [False, True, True, True]


def test_the_subject_appears_in_every_quarter():
    """Where only the motion of the subject changes, only its quarter changes, and at most that of its rival."""
    places = set()
    for seed in range(12):
        one, other = (draw("amber", motion, seed, 4) for motion in ("growing", "shrinking"))
        changed = np.abs(one - other).sum(axis=(0, 3))
        sums = [changed[top : top + HALF, left : left + HALF].sum() for top in (0, HALF) for left in (0, HALF)]
        assert 1 <= np.count_nonzero(sums) <= 2
        places.add(int(np.argmax(sums)))
    assert places == {0, 1, 2, 3}


def test_swaying_returns_and_left_does_not():
    """Frames at the same distance from the reversal show the mover at the same place; only the rest flickers."""
    swaying, left = (
        np.mean([np.abs(np.diff(draw("amber", motion, seed)[[7, 9]], axis=0)).sum() for seed in range(8)])
        for motion in ("swaying", "left")
    )
    assert swaying < 0.8 * left


def test_hard_scenes_have_sixteen_other_classes():
    assert len(demo_classes("hard")) == 16
    assert not set(demo_classes("hard")) & set(demo_classes())


def test_a_folder_of_plain_scenes_becomes_one_of_hard_ones(tmp_path):
    for name in demo_classes():
        video = tmp_path / "train" / name / "00.mp4"
        video.parent.mkdir(parents=True)
        video.write_bytes(b"v")
    write_demo(tmp_path, dataclasses.replace(TINY, scenes="hard", size=SIDE))
    listing = DATASETS["demo"].list_videos(ListingRequest(root=tmp_path))
    assert listing.classes == demo_classes("hard")
    assert len(listing.videos) == 32


def test_unknown_scenes_are_named():
    with pytest.raises(SettingError, match="scenes are 'harder'"):
        DemoSettings(scenes="harder")


def test_hard_scenes_have_more_test_clips():
    plain, hard = (choose_settings(scenes, 8, 12) for scenes in ("plain", "hard"))
    assert plain == DemoSettings(clip_length=8, train_videos=12, test_videos=6)
    assert 16 * hard.test_videos * hard.test_scenes == 1440
    assert choose_settings("plain", 16, None) == DemoSettings()


def test_plain_scenes_are_not_in_the_saved_settings():
    assert "scenes" not in DemoSettings().to_json()
    assert DemoSettings(scenes="hard").to_json()["scenes"] == "hard"
