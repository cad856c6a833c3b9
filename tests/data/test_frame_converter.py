"""Planes' promises: the quick way and ffmpeg's scaler agree, for every value, range and padding."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from respike.data.video_reader import FrameConverter, scaled_size


def frame_of_noise(pixel_format, width=70, height=46, color_range=0, colorspace=2):
    """A frame whose chroma and luma take every value from 0 to 255, lines padded as decoders pad them."""
    frame = av.VideoFrame(width, height, pixel_format)
    generator = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(generator.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    frame.color_range, frame.colorspace = color_range, colorspace
    return frame


def plain(frame, number):
    plane = frame.planes[number]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


@pytest.mark.parametrize("colorspace", [2, Colorspace.ITU601, Colorspace.SMPTE170M])
def test_limited_range_becomes_full_range_as_in_bt601(colorspace):
    frame = frame_of_noise("yuv420p", colorspace=colorspace)
    planes = FrameConverter("ycc", 256).planes(frame)
    for number, (plane, steps, neutral) in enumerate(zip(planes, (219, 224, 224), (0, 128, 128), strict=True)):
        level = np.maximum(plain(frame, number).astype(float), 16)
        base = 16 if number == 0 else 128
        exact = np.clip((level - base) * 255 / steps + neutral, 0, 255)
        assert np.abs(plane - exact).max() <= 0.5 + 1e-6


def test_the_scaler_gives_the_same_within_a_level():
    frame = frame_of_noise("yuv420p", color_range=ColorRange.MPEG)
    maker = FrameConverter("ycc", 256)
    scaler = [plain(maker._to_ycc(frame, (70, 46)), number) for number in range(3)]
    for ours, theirs in zip(maker.planes(frame), scaler, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(("pixel_format", "color_range"), [("yuvj420p", 0), ("yuv420p", ColorRange.JPEG)])
def test_full_range_is_unchanged(pixel_format, color_range):
    frame = frame_of_noise(pixel_format, color_range=color_range)
    for number, plane in enumerate(FrameConverter("ycc", 256).planes(frame)):
        np.testing.assert_array_equal(plane, plain(frame, number))


def test_another_matrix_goes_through_the_scaler():
    frame = frame_of_noise("yuv420p", color_range=ColorRange.MPEG, colorspace=Colorspace.ITU709)
    maker = FrameConverter("ycc", 256)
    expected = [plain(maker._to_ycc(frame, (70, 46)), number) for number in range(3)]
    assert all((a == b).all() for a, b in zip(maker.planes(frame), expected, strict=True))
    assert any(
        (a != b).any()
        for a, b in zip(
            maker.planes(frame),
            FrameConverter("ycc", 256).planes(frame_of_noise("yuv420p", color_range=ColorRange.MPEG)),
            strict=True,
        )
    )


def test_planes_do_not_share_memory_with_the_decoder():
    frame = frame_of_noise("yuvj420p")
    planes = FrameConverter("ycc", 256).planes(frame)
    before = [plane.copy() for plane in planes]
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    assert all((a == b).all() for a, b in zip(planes, before, strict=True))
    assert all(plane.flags.c_contiguous for plane in planes)


def test_the_short_side_is_limited_and_the_long_side_even():
    assert scaled_size(320, 240, 256) == (320, 240)
    assert scaled_size(1920, 1080, 256) == (456, 256)
    assert scaled_size(1080, 1921, 256) == (256, 456)
