"""Demo promises: real H.264 clips of one scene each, where no frame tells the motion and no event the prop."""

import dataclasses

import numpy as np
import pytest
from respike.common.errors import SettingError
from respike.data.synthetic import MOTIONS, PROPS, DemoSettings, demo_classes, draw_scene, write_demo
from respike.data.video_reader import Decoding

SMALL = DemoSettings(train_videos=1, train_scenes=2, test_videos=1, test_scenes=1)


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


@pytest.mark.parametrize("moment", [0, 4, 12])
def test_single_frames_do_not_show_the_motion(moment):
    """Mean pictures of many scenes differ between motions no more than two halves of one motion do."""
    means = {}
    for number, motion in enumerate(MOTIONS):
        frames = [draw_scene("square", motion, 16, np.random.default_rng([number, i]))[moment] for i in range(120)]
        means[motion] = [np.mean(frames[:60], axis=0), np.mean(frames[60:], axis=0)]
    within = np.mean([np.abs(first - second).mean() for first, second in means.values()])
    halves = [halves[0] for halves in means.values()]
    between = np.mean([np.abs(one - other).mean() for one in halves for other in halves if one is not other])
    assert between < 1.25 * within


def test_finished_videos_are_not_made_again(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*.mp4")}
    write_demo(demo, SMALL)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*.mp4")} == before


def test_there_are_sixteen_classes():
    assert len(demo_classes()) == len(PROPS) * len(MOTIONS) == 16


def test_a_setting_below_one_is_named():
    with pytest.raises(SettingError, match="train_videos is 0"):
        DemoSettings(train_videos=0)


def test_a_stopped_demo_keeps_its_finished_videos(tmp_path):
    settings = DemoSettings(train_videos=1, train_scenes=1, test_videos=1, test_scenes=1, clip_length=4)
    write_demo(tmp_path, settings)
    # as a stop leaves it: not all are there, one is half, and the end was not reached
    (tmp_path / "demo.json").rename(tmp_path / ".begun.json")
    whole, lost = tmp_path / "train" / "disc-left" / "00.mp4", tmp_path / "test" / "disc-left" / "00.mp4"
    content, written = lost.read_bytes(), whole.stat().st_mtime_ns
    lost.unlink()
    (lost.parent / ".00.mp4").write_bytes(content[:100])
    write_demo(tmp_path, settings)
    assert whole.stat().st_mtime_ns == written
    assert lost.read_bytes() == content
    assert not list(tmp_path.rglob(".*"))


def test_videos_of_other_settings_are_not_kept(tmp_path):
    settings = DemoSettings(train_videos=1, train_scenes=1, test_videos=1, test_scenes=1, clip_length=4)
    write_demo(tmp_path, settings)
    (tmp_path / "demo.json").rename(tmp_path / ".begun.json")
    path = tmp_path / "train" / "disc-left" / "00.mp4"
    before = path.read_bytes()
    write_demo(tmp_path, dataclasses.replace(settings, seed=1))
    assert path.read_bytes() != before
