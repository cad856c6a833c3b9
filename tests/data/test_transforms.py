"""Augmentation promises: key frames and events go through the same crop, flip and resize."""

import cv2
import numpy as np
import pytest
from respike.data.event_codec import allocate_planes, residual_events
from respike.data.transforms import View, multi_scale_view, write_view
from respike.types import ClipInfo, EventClip, ycc_difference_to_rgb

INFO = ClipInfo(
    video="v",
    label=0,
    class_name="c",
    subset="train",
    clip_index=0,
    frame_indices=(0, 1, 2, 3),
    times_seconds=(0.0, 0.1, 0.2, 0.3),
    num_padded=0,
    width=80,
    height=60,
)


def smooth_frames(height=60, width=80):
    """Four frames of a soft pattern that drifts: [4, 3, H, W] in 0 … 255."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        [128 + 90 * np.sin((columns + 3 * time) / 9 + channel) * np.cos(rows / 11) for channel in range(3)]
        for time in range(4)
    ]
    return np.array(waves).astype(np.uint8)


def clip_of(frames, threshold):
    key = frames[0]
    planes = allocate_planes(1, len(frames) - 1, *key.shape[1:], "rgb", threshold)
    for channel, plane in enumerate(planes):
        for frame, events in zip(frames[1:], plane[0], strict=True):
            residual_events(frame[channel], key[channel], threshold, events)
    return EventClip(key="k", keys=key[None], planes=planes, threshold=threshold, color="rgb", info=INFO)


def cut(clip, view, size):
    """Keys and residuals of a clip in a view, brought to a square of `size` pixels."""
    num_groups, num_residuals = clip.planes[0].shape[:2]
    keys = np.empty((num_groups, 3, size, size), np.uint8)
    residuals = np.empty((num_groups, num_residuals, 3, size, size), np.int16)
    write_view(clip, view, keys, residuals)
    return keys, residuals


VIEWS = [
    View(top=0, left=0, height=60, width=80),
    View(top=10, left=20, height=40, width=40),
    View(top=4, left=6, height=32, width=50, flip=True),
    multi_scale_view(60, 80, np.random.default_rng(2), flip=True),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("threshold", [1, 8])
def test_augmentation_commutes_with_reconstruction(view, threshold):
    frames = smooth_frames()
    clip = clip_of(frames, threshold)
    keys, residuals = cut(clip, view, 48)
    first = keys[:, None].astype(int) + residuals
    rebuilt = clip.to_frames()
    stills = EventClip(
        key="k",
        keys=rebuilt[1:],
        planes=tuple(np.zeros((3, 1, 60, 80), np.int8) for _ in range(3)),
        threshold=8,
        color="rgb",
        info=INFO,
    )
    second, _ = cut(stills, view, 48)
    # two roundings to whole grey levels on one way, one on the other
    assert np.abs(first[0] - second.astype(int)).max() <= 2
    assert np.abs(first[0] - cut(clip_of(frames, 1), view, 48)[1][0] - keys).max() < threshold + 2


def cut_plane_by_plane(clip, view, size):
    """The definition: each plane of each picture cut, scaled, resized and mirrored by itself."""

    def look(plane, factor):
        top, left = view.top // factor, view.left // factor
        part = plane[top : top + -(-view.height // factor), left : left + -(-view.width // factor)]
        method = cv2.INTER_AREA if min(part.shape) > 2 * size else cv2.INTER_LINEAR
        part = np.ascontiguousarray(part)
        resized = part if part.shape == (size, size) else cv2.resize(part, (size, size), interpolation=method)
        return resized[:, ::-1] if view.flip else resized

    factors = [clip.planes[0].shape[-1] // plane.shape[-1] for plane in clip.planes]
    keys = [[look(plane, 1) for plane in picture] for picture in clip.keys]
    residuals = [
        [
            [
                look(plane.astype(np.int16) * clip.threshold, factor)
                for plane, factor in zip(frame, factors, strict=True)
            ]
            for frame in zip(*group, strict=True)
        ]
        for group in zip(*clip.planes, strict=True)
    ]
    return np.array(keys), np.array(residuals)


@pytest.mark.parametrize("size", [16, 40, 48, 224])
@pytest.mark.parametrize("view", [*VIEWS, View(top=2, left=4, height=40, width=40, flip=True)])
@pytest.mark.parametrize(("color", "threshold", "num_groups"), [("ycc", 8, 4), ("ycc", 3, 1), ("rgb", 1, 2)])
def test_planes_resized_together_equal_single_planes(size, view, color, threshold, num_groups):
    generator = np.random.default_rng(3)
    most = 255 // threshold
    halved = (30, 40) if color == "ycc" else (60, 80)
    planes = []
    for sides in ((60, 80), halved, halved):
        # rows that do not follow on each other, as they may lie in memory
        plane = generator.integers(-most, most + 1, (num_groups, 3, sides[0], sides[1] + 5), np.int16)
        planes.append(plane.astype(np.int8 if threshold > 1 else np.int16)[..., : sides[1]])
    # planes without an event, at the beginning, in the midst and at the end
    planes[0][0, 1] = planes[1][0, 0] = planes[2][-1, -1] = 0
    keys = generator.integers(0, 256, (num_groups, 60, 80, 3), np.uint8).transpose(0, 3, 1, 2)
    clip = EventClip(key="k", keys=keys, planes=tuple(planes), threshold=threshold, color=color, info=INFO)
    for got, expected in zip(cut(clip, view, size), cut_plane_by_plane(clip, view, size), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_plane_without_events_is_written_as_zeros():
    clip = clip_of(np.repeat(smooth_frames()[:1], 4, axis=0), 8)
    residuals = np.full((1, 3, 3, 48, 48), 77, np.int16)
    write_view(clip, VIEWS[1], np.empty((1, 3, 48, 48), np.uint8), residuals)
    assert not residuals.any()


def test_a_flip_mirrors_keys_and_residuals_alike():
    clip = clip_of(smooth_frames(), 4)
    plain = cut(clip, View(top=0, left=0, height=60, width=60), 30)
    mirrored = cut(clip, View(top=0, left=0, height=60, width=60, flip=True), 30)
    for one, other in zip(plain, mirrored, strict=True):
        np.testing.assert_array_equal(one[..., ::-1], other)


def test_halved_chroma_stays_aligned_with_luma():
    generator = np.random.default_rng(0)
    blocks = generator.integers(-20, 20, (1, 1, 15, 20)).astype(np.int8)
    half = blocks.repeat(2, 2).repeat(2, 3)
    full = half.repeat(2, 2).repeat(2, 3)
    clip = EventClip(
        key="k",
        keys=np.zeros((1, 3, 60, 80), np.uint8),
        planes=(full, half, half),
        threshold=2,
        color="ycc",
        info=INFO,
    )
    _, residuals = cut(clip, View(top=8, left=12, height=40, width=40), 40)
    # interpolation blurs chroma's edges; within a block of four pixels the planes agree
    inner = residuals[0, 0][:, 1::4, 1::4].astype(int)
    assert np.corrcoef(inner[0].ravel(), inner[1].ravel())[0, 1] > 0.98


def test_the_map_from_ycc_is_the_one_of_jpeg():
    difference = np.array([10.0, 20.0, -30.0]).reshape(3, 1, 1)
    red, green, blue = ycc_difference_to_rgb(difference).ravel()
    assert (red, green, blue) == pytest.approx((10 - 42.06, 10 - 0.344136 * 20 + 0.714136 * 30, 10 + 35.44), abs=1e-3)
