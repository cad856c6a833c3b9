"""Event codec: events of a residual, and packing without loss into bytes that never change."""

import hashlib

import numpy as np
import pytest
from respike.common.errors import ShardError
from respike.data.event_codec import (
    event_dtype,
    pack,
    packed_frame_size,
    packed_sizes,
    plane_shapes,
    residual_events,
    unpack,
)

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


# height and width of luma: even, odd, narrower than a column, taller and lower than a band
SIZES = [(64, 48), (25, 34), (33, 47), (1, 1), (2, 9), (100, 7), (7, 100)]


def make_events(shapes, largest, dtype=np.int8):
    generator = np.random.default_rng(0)
    return [generator.integers(-largest, largest + 1, shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("threshold", "largest"), [(2, 0), (8, 1), (8, 31), (2, 127), (1, 3), (1, 255)])
@pytest.mark.parametrize(("num_groups", "num_residuals"), [(1, 1), (2, 3)])
def test_every_event_comes_back(color, height, width, threshold, largest, num_groups, num_residuals):
    sizes = (num_groups, num_residuals, height, width, color)
    planes = make_events(plane_shapes(*sizes), largest, event_dtype(threshold))
    content = pack(planes, color)
    assert len(content) in packed_sizes(*sizes, threshold)
    for read, written in zip(unpack(content, *sizes, threshold), planes, strict=True):
        assert read.dtype == written.dtype
        np.testing.assert_array_equal(read, written)


@pytest.mark.parametrize("color", ["ycc", "rgb"])
def test_small_events_take_half_a_byte_each(color):
    planes = make_events(plane_shapes(2, 3, 64, 48, color), 1)
    rows, columns = packed_frame_size(64, 48, color)
    assert rows * columns == 64 * 48 * (3 if color == "rgb" else 1.5)
    # differences of differences reach ±4, within what half a byte holds
    assert len(pack(planes, color)) == 2 * 3 * rows * columns // 2


def test_a_large_difference_takes_one_more_byte():
    planes = [np.zeros(shape, np.int8) for shape in plane_shapes(1, 1, 32, 32, "ycc")]
    least = len(pack(planes, "ycc"))
    planes[0][0, 0, 5, 5] = 8
    # one for its row and one for the row below
    assert len(pack(planes, "ycc")) == least + 2


def test_equal_residuals_are_stored_once():
    planes = [np.zeros(shape, np.int8) for shape in plane_shapes(1, 3, 32, 32, "ycc")]
    planes[0][0] = np.random.default_rng(0).integers(-31, 32, (32, 32))
    halves = np.frombuffer(pack(planes, "ycc")[: 3 * 48 * 32 // 2], np.uint8).reshape(3, -1)
    assert (halves[0] != 0x77).any()
    assert (halves[1:] == 0x77).all()


@pytest.mark.parametrize(
    ("color", "dtype", "digest"),
    [
        ("ycc", np.int8, "1384d9059f4db2ae"),
        ("rgb", np.int8, "6be71049554ed0d4"),
        ("ycc", np.int16, "c1d7b5c7d1da7942"),
        ("rgb", np.int16, "6292a12a1aba91a2"),
    ],
)
def test_packed_bytes_never_change(color, dtype, digest):
    # shards on disk hold these bytes: another result needs a new version of the format
    generator = np.random.Generator(np.random.PCG64(7))
    planes = [(generator.random(shape) * 9 - 4.5).round().astype(dtype) for shape in plane_shapes(2, 3, 41, 39, color)]
    assert hashlib.sha256(pack(planes, color)).hexdigest()[:16] == digest


def test_views_of_larger_arrays_are_packed_alike():
    planes = make_events(plane_shapes(2, 3, 25, 34, "ycc"), 9)
    wide = [np.pad(plane, ((0, 0), (0, 0), (1, 2), (3, 4)))[:, :, 1:-2, 3:-4] for plane in planes]
    assert pack(wide, "ycc") == pack(planes, "ycc")


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_missing_or_additional_outliers_are_refused(change):
    planes = make_events(plane_shapes(2, 3, 25, 34, "ycc"), 31)
    with pytest.raises(ShardError, match="outliers"):
        unpack(change(pack(planes, "ycc")), 2, 3, 25, 34, "ycc")


@pytest.mark.parametrize(("color", "width", "column"), [("ycc", 33, 33), ("ycc", 33, 39), ("rgb", 33, 33)])
def test_events_outside_of_the_picture_are_refused(color, width, column):
    content = bytearray(pack([np.zeros(shape, np.int8) for shape in plane_shapes(1, 1, 8, width, color)], color))
    rows = packed_frame_size(8, width, color)[0]
    # in the first row, in its column of eight
    content[column // 8 * rows * 4 + column % 8 // 2] ^= 0x01 if column % 2 else 0x10
    with pytest.raises(ShardError, match="outside of the picture"):
        unpack(bytes(content), 1, 1, 8, width, color)
