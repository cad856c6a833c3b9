"""Sampling: which frames make a clip."""

import pytest
from respike.common.errors import SettingError
from respike.data.sampling import SamplingSettings, plan_clips


def plan(num_frames, training=False, seed=0, video_id="v", **settings):
    return plan_clips(num_frames, SamplingSettings(**settings), training=training, video_id=video_id, seed=seed)


def test_dense_takes_consecutive_frames_and_drops_the_rest():
    clips = plan(40)
    assert [clip.frame_indices for clip in clips] == [tuple(range(16)), tuple(range(16, 32))]
    assert [clip.index for clip in clips] == [0, 1]


def test_clip_step_below_the_length_overlaps():
    assert [clip.frame_indices[0] for clip in plan(40, clip_step=8)] == [0, 8, 16, 24]


def test_frame_stride_thins_before_clips_are_cut():
    clips = plan(70, frame_stride=2)
    assert [clip.frame_indices for clip in clips] == [tuple(range(0, 32, 2)), tuple(range(32, 64, 2))]


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
@pytest.mark.parametrize("training", [True, False])
def test_a_short_video_repeats_its_last_frame(sampling, training):
    (clip,) = plan(5, sampling=sampling, training=training)
    assert clip.frame_indices == (0, 1, 2, 3, 4, *[4] * 11)
    assert clip.num_padded == 11


def test_a_video_of_exactly_one_clip_is_not_padded():
    (clip,) = plan(16)
    assert clip.num_padded == 0
    assert clip.frame_indices == tuple(range(16))


def test_no_frames_give_no_clips():
    assert plan(0) == []


def test_uniform_evaluation_takes_the_middle_of_each_segment():
    (clip,) = plan(160, sampling="uniform")
    assert clip.frame_indices == tuple(range(5, 160, 10))


def test_uniform_views_take_the_point_i_plus_a_half_over_n():
    first, second = plan(160, sampling="uniform", eval_clips=2)
    assert (first.frame_indices[0], second.frame_indices[0]) == (2, 7)
    ten = plan(300, sampling="uniform", eval_clips=10)
    assert [clip.index for clip in ten] == list(range(10))
    assert len({clip.frame_indices for clip in ten}) == 10
    # the middle one of an odd number is the single one
    assert (
        plan(300, sampling="uniform", eval_clips=9)[4].frame_indices == plan(300, sampling="uniform")[0].frame_indices
    )


@pytest.mark.parametrize(("num_frames", "num_clips"), [(5, 1), (16, 1), (32, 2), (48, 3), (170, 10)])
def test_equal_views_of_a_short_video_are_one_clip(num_frames, num_clips):
    clips = plan(num_frames, sampling="uniform", eval_clips=10)
    assert len({clip.frame_indices for clip in clips}) == len(clips) == num_clips


@pytest.mark.parametrize("num_frames", [*range(14, 34), 300])
def test_equal_draws_of_a_short_video_are_one_clip(num_frames):
    settings = {"sampling": "uniform", "training": True, "clips_per_video": 12}
    clips = plan(num_frames, **settings)
    assert len({clip.frame_indices for clip in clips}) == len(clips)
    assert [clip.index for clip in clips] == list(range(len(clips)))
    # a segment of two frames can be drawn in two ways, one of one frame in one
    assert len(clips) <= 2 ** max(0, num_frames - 16)
    # those that are left are the draws they were
    assert plan(num_frames, **(settings | {"clips_per_video": 1})) == clips[:1]


def test_long_videos_give_clips_per_video_draws():
    assert [len(plan(frames, sampling="uniform", training=True)) for frames in (16, 300)] == [1, 4]


def test_eval_clips_do_not_change_training():
    assert plan(300, sampling="uniform", training=True, eval_clips=10) == plan(300, sampling="uniform", training=True)


def test_several_views_of_dense_sampling_are_refused():
    with pytest.raises(SettingError, match="eval_clips is 10, sampling is dense"):
        SamplingSettings(eval_clips=10)


def test_uniform_training_draws_one_frame_from_each_segment():
    clips = plan(165, sampling="uniform", training=True, clips_per_video=6)
    assert len(clips) == 6
    for clip in clips:
        for segment, index in enumerate(clip.frame_indices):
            assert segment * 165 // 16 <= index < (segment + 1) * 165 // 16


def test_uniform_draws_depend_on_seed_and_video_only():
    same = [plan(200, sampling="uniform", training=True) for _ in range(2)]
    assert same[0] == same[1]
    assert plan(200, sampling="uniform", training=True, seed=1) != same[0]
    assert plan(200, sampling="uniform", training=True, video_id="w") != same[0]


@pytest.mark.parametrize("name", ["clip_length", "clips_per_video", "eval_clips", "frame_stride", "clip_step"])
def test_a_value_below_one_is_named(name):
    with pytest.raises(SettingError, match=f"{name} is 0"):
        SamplingSettings(**{name: 0})
