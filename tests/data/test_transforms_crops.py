"""Crop promises: inside the frame, on even pixels, of the promised sizes, the same for the same seed."""

from collections import Counter

import numpy as np
import pytest
from respike.common.errors import SettingError
from respike.data.loader import LoaderSettings
from respike.data.transforms import View, centre_view, multi_scale_view, random_view, square_view

DRAWS = [random_view, multi_scale_view]
# the shares of 256 pixels, and those of 240, each rounded down to even pixels
SIDES = {256: (256, 224, 192, 168), 240: (240, 210, 180, 158)}


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop": "centre"}, "crop is 'centre'"),
        ({"crop_sides": ()}, "crop_sides is"),
        ({"crop_sides": (1.1,)}, "crop_sides is"),
        ({"crop_sides": (0.66, 1.0, 0.75)}, "crop_sides is"),
        ({"eval_crop": 0.0}, "eval_crop is 0"),
        ({"eval_crop": 1.1}, "eval_crop is 1.1"),
        ({"num_crops": 0}, "num_crops is 0"),
        ({"num_crops": 3}, "num_crops is 3 in training"),
        ({"rank": 2}, "rank is 2 of 1"),
    ],
)
def test_invalid_loader_settings_are_named(change, said):
    with pytest.raises(SettingError, match=said):
        LoaderSettings(**({"batch_size": 2, "training": True, "image_size": 32} | change))
