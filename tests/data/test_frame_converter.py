"""Frame converter: equal to ffmpeg's scaler for every value, range and padding."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from respike.data.video_reader import FrameConverter, scaled_size


def frame_of_noise(pixel_format, width=70, height=46, color_range=0, colorspace=2):
    """A frame whose chroma and luma take every value from 0 to 255, with padded lines."""
    frame = av.VideoFrame(width, height, pixel_format)
    generator = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(generator.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    frame.color_range, frame.colorspace = color_range, colorspace
    return frame


def scaled(frame):
    """What ffmpeg's scaler makes of a frame: full-range BT.601."""
    return VideoReformatter().reformat(
        frame, format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG
    )


def plain(frame, number):
    plane = frame.planes[number]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


@pytest.mark.parametrize("colorspace", [2, Colorspace.ITU601, Colorspace.SMPTE170M])
def test_limited_range_becomes_full_range_as_in_bt601(colorspace):
    frame = frame_of_noise("yuv420p", colorspace=colorspace)
    planes = FrameConverter("ycc", 256).convert(frame)
    for number, (plane, steps, neutral) in enumerate(zip(planes, (219, 224, 224), (0, 128, 128), strict=True)):
        level = np.maximum(plain(frame, number).astype(float), 16)
        base = 16 if number == 0 else 128
        exact = np.clip((level - base) * 255 / steps + neutral, 0, 255)
        assert np.abs(plane - exact).max() <= 0.5 + 1e-6


def test_the_scaler_gives_the_same_within_a_level():
    frame = frame_of_noise("yuv420p", color_range=ColorRange.MPEG)
    for number, plane in enumerate(FrameConverter("ycc", 256).convert(frame)):
        assert np.abs(plane.astype(int) - plain(scaled(frame), number)).max() <= 1


@pytest.mark.parametrize(("pixel_format", "color_range"), [("yuvj420p", 0), ("yuv420p", ColorRange.JPEG)])
def test_full_range_is_unchanged(pixel_format, color_range):
    frame = frame_of_noise(pixel_format, color_range=color_range)
    for number, plane in enumerate(FrameConverter("ycc", 256).convert(frame)):
        np.testing.assert_array_equal(plane, plain(frame, number))


def test_another_matrix_goes_through_the_scaler():
    frame = frame_of_noise("yuv420p", color_range=ColorRange.MPEG, colorspace=Colorspace.ITU709)
    planes = FrameConverter("ycc", 256).convert(frame)
    for number, plane in enumerate(planes):
        np.testing.assert_array_equal(plane, plain(scaled(frame), number))
    others = FrameConverter("ycc", 256).convert(frame_of_noise("yuv420p", color_range=ColorRange.MPEG))
    assert any((one != other).any() for one, other in zip(planes, others, strict=True))


def test_planes_do_not_share_memory_with_the_decoder():
    frame = frame_of_noise("yuvj420p")
    planes = FrameConverter("ycc", 256).convert(frame)
    before = [plane.copy() for plane in planes]
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    assert all((a == b).all() for a, b in zip(planes, before, strict=True))
    assert all(plane.flags.c_contiguous for plane in planes)


def test_the_short_side_is_limited_and_the_long_side_even():
    assert scaled_size(320, 240, 256) == (320, 240)
    assert scaled_size(1920, 1080, 256) == (456, 256)
    assert scaled_size(1080, 1921, 256) == (256, 456)
