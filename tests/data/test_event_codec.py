"""Event promises: signed, truncated towards zero, and never further than θ from the residual."""

import numpy as np
import pytest
from respike.common.errors import SettingError
from respike.data.event_codec import check_threshold, event_dtype, residual_events

EVERY_PAIR = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))


def events_of(frame, key, threshold):
    # one residual among others, as in a clip's planes
    planes = np.full((2, *frame.shape), 99, event_dtype(threshold))
    residual_events(frame, key, threshold, planes[1])
    assert (planes[0] == 99).all()
    return planes[1]


@pytest.mark.parametrize("threshold", [1, 2, 3, 8, 127, 255])
def test_events_equal_the_definition_on_every_pair_of_values(threshold):
    frame, key = EVERY_PAIR
    expected = np.trunc((frame.astype(float) - key) / threshold)
    np.testing.assert_array_equal(events_of(frame, key, threshold), expected)


@pytest.mark.parametrize("threshold", [1, 2, 8, 60])
def test_events_bound_the_error_by_the_threshold(threshold):
    frame, key = EVERY_PAIR
    residual = frame.astype(int) - key
    assert np.abs(residual - threshold * events_of(frame, key, threshold).astype(int)).max() < threshold


def test_events_are_bytes_unless_the_threshold_is_one():
    assert event_dtype(1) == np.int16
    assert event_dtype(2) == np.int8


@pytest.mark.parametrize("threshold", [0, -3, 256])
def test_a_threshold_out_of_range_is_named(threshold):
    with pytest.raises(SettingError, match=f"threshold is {threshold}"):
        check_threshold(threshold)
