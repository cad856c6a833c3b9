"""Transforms: key frames and events get the same crop, flip and resize; crops have the published sizes."""

from collections import Counter

import cv2
import numpy as np
import pytest
from respike.data.event_codec import allocate_planes, residual_events
from respike.data.transforms import View, centre_view, multi_scale_view, random_view, square_view, write_view
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
DRAWS = [random_view, multi_scale_view]
# the shares of 256 pixels, and those of 240, each rounded down to even pixels
SIDES = {256: (256, 224, 192, 168), 240: (240, 210, 180, 158)}


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
    """Return the definition: each plane of each picture cropped, scaled, resized and mirrored by itself."""

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
        # rows that are not contiguous in memory
        plane = generator.integers(-most, most + 1, (num_groups, 3, sides[0], sides[1] + 5), np.int16)
        planes.append(plane.astype(np.int8 if threshold > 1 else np.int16)[..., : sides[1]])
    # planes without an event, first, in the middle and last
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


def draws(height: int, width: int, number: int, **settings: object) -> list[View]:
    flipped = {"flip": True} | settings
    return [multi_scale_view(height, width, np.random.default_rng(seed), **flipped) for seed in range(number)]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("height", "width"), [(61, 83), (83, 61), (16, 16), (17, 90)])
def test_drawn_crops_are_inside_even_and_repeatable(draw, height, width):
    for seed in range(200):
        view = draw(height, width, np.random.default_rng(seed), flip=True)
        assert view == draw(height, width, np.random.default_rng(seed), flip=True)
        assert view.top % 2 == view.left % 2 == 0
        assert 0 < view.height <= height - view.top
        assert 0 < view.width <= width - view.left


@pytest.mark.parametrize("draw", DRAWS)
def test_without_flip_nothing_is_mirrored(draw):
    assert not any(draw(60, 80, np.random.default_rng(seed), flip=False).flip for seed in range(50))
    assert any(draw(60, 80, np.random.default_rng(seed), flip=True).flip for seed in range(50))


@pytest.mark.parametrize(("height", "width"), [(256, 340), (340, 256), (240, 320)])
def test_multi_scale_crops_have_the_published_sizes(height, width):
    sides = SIDES[min(height, width)]
    sizes = Counter((view.height, view.width) for view in draws(height, width, 3000))
    pairs = {(sides[tall], sides[wide]) for tall in range(4) for wide in range(4) if abs(tall - wide) <= 1}
    assert set(sizes) == pairs
    # of 3,000 draws over ten pairs 300 each, with a deviation of 16
    assert all(abs(count - 300) < 90 for count in sizes.values())


def test_multi_scale_crops_have_thirteen_places():
    views = [view for view in draws(256, 340, 3000) if (view.height, view.width) == (224, 224)]
    # 32 rows and 116 columns are left over: quarters of 8 and of 29, the latter on even pixels
    places = {(8 * down, column) for down in range(5) for right, column in enumerate((0, 28, 58, 86, 116))
              if down % 2 == right % 2}  # fmt: skip
    assert {(view.top, view.left) for view in views} == places
    assert len(places) == 13


def test_a_single_side_of_one_gives_the_full_short_side():
    assert {(view.height, view.width) for view in draws(60, 80, 50, sides=(1.0,))} == {(60, 60)}


def test_the_centre_view_is_the_largest_centred_square():
    assert centre_view(240, 320) == View(top=0, left=40, height=240, width=240)
    assert centre_view(64, 64) == View(top=0, left=0, height=64, width=64)


def test_smaller_squares_reach_both_ends_of_the_long_side():
    # what resizing to 256 and taking the centre 224 shows
    assert centre_view(256, 340, 0.875) == View(top=16, left=58, height=224, width=224)
    views = [square_view(256, 340, place, 3, 0.875) for place in range(3)]
    assert [(view.top, view.left, view.left + view.width) for view in views] == [
        (16, 0, 224),
        (16, 58, 282),
        (16, 116, 340),
    ]
    assert square_view(64, 64, 2, 3, 0.5) == centre_view(64, 64, 0.5) == View(top=16, left=16, height=32, width=32)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (61, 95), (64, 64), (65, 65)])
def test_three_squares_cover_the_long_side(height: int, width: int) -> None:
    views = [square_view(height, width, place, 3) for place in range(3)]
    assert views[1] == centre_view(height, width)
    assert (views[0].top, views[0].left) == (0, 0)
    last = views[2]
    # luma that a whole chroma sample does not cover stays out
    assert height - (last.top + last.height) < 2
    assert width - (last.left + last.width) < 2
    assert all(view.top % 2 == view.left % 2 == 0 for view in views)


def test_the_squares_of_a_wide_frame_are_left_centre_right() -> None:
    assert [square_view(240, 320, place, 3).left for place in range(3)] == [0, 40, 80]
