"""Hard scenes' promises: no frame tells a motion, no event the subject, and only their place puts them together."""

import numpy as np
import pytest
from respike.common.errors import SettingError
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.synthetic import (
    HARD_MOTIONS,
    HARD_SUBJECTS,
    DemoSettings,
    choose_settings,
    demo_classes,
    draw_hard_scene,
    write_demo,
)

SIZE = 72
HALF = SIZE // 2


def draw(subject, motion, seed, num_frames=16):
    return draw_hard_scene(subject, motion, num_frames, np.random.default_rng(seed), SIZE).astype(int)


def quarters_that_change(frames):
    """For each quarter whether anything in it changes from a frame to the next, `[4]`."""
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


@pytest.mark.parametrize("moment", [7])
def test_single_frames_do_not_show_the_motion(moment):
    """Mean pictures of many scenes differ between motions no more than two halves of one motion do."""
    means = {}
    for number, motion in enumerate(HARD_MOTIONS):
        frames = [draw("azure", motion, [number, i], moment + 1)[moment] for i in range(60)]
        means[motion] = [np.mean(frames[:30], axis=0), np.mean(frames[30:], axis=0)]
    within = np.mean([np.abs(first - second).mean() for first, second in means.values()])
    halves = [halves[0] for halves in means.values()]
    between = np.mean([np.abs(one - other).mean() for one in halves for other in halves if one is not other])
    assert between < 1.25 * within


@pytest.mark.parametrize("seed", range(4))
def test_three_things_change_and_one_quarter_is_empty(seed):
    assert sorted(quarters_that_change(draw("amber", "left", seed))) == [False, True, True, True]


def test_the_subject_appears_in_every_quarter():
    """With the subject's motion changed and nothing else, what changes lies in its quarter, and its rival's at most."""
    places = set()
    for seed in range(12):
        one, other = (draw("amber", motion, seed) for motion in ("growing", "shrinking"))
        changed = np.abs(one - other).sum(axis=(0, 3))
        sums = [changed[top : top + HALF, left : left + HALF].sum() for top in (0, HALF) for left in (0, HALF)]
        assert 1 <= np.count_nonzero(sums) <= 2
        places.add(int(np.argmax(sums)))
    assert places == {0, 1, 2, 3}


def test_swaying_returns_and_left_does_not():
    """Frames at one distance from the turn show a mover that turns back at one place; the flicker is the rest's."""
    swaying, left = (
        np.mean([np.abs(np.diff(draw("amber", motion, seed)[[7, 9]], axis=0)).sum() for seed in range(8)])
        for motion in ("swaying", "left")
    )
    assert swaying < 0.8 * left


def test_hard_scenes_have_sixteen_other_classes():
    assert len(demo_classes("hard")) == 16
    assert not set(demo_classes("hard")) & set(demo_classes())


def test_a_folder_of_plain_scenes_becomes_one_of_hard_ones(tmp_path):
    small = {"train_videos": 1, "train_scenes": 1, "test_videos": 1, "test_scenes": 1, "clip_length": 2}
    for scenes in ("plain", "hard"):
        write_demo(tmp_path, DemoSettings(**small, scenes=scenes), num_workers=2)
        listing = DATASETS["demo"].list_videos(ListingRequest(root=tmp_path))
        assert listing.classes == demo_classes(scenes)
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
