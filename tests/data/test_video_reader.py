"""Video reader: right colours, sizes and times, and cut files are refused."""

import os
import subprocess

import av
import numpy as np
import pytest
from respike.common.errors import UnreadableVideoError
from respike.data.video_reader import Decoding, probe
from respike.data.video_writer import ffmpeg_path, write_video

from tests.conftest import REAL_CLIPS, moving_square


def decode_all(path, color="rgb", short_side=256, wanted=None):
    return list(Decoding(path, color=color, short_side=short_side).frames(wanted))


@pytest.fixture
def lossless(tmp_path):
    frames = moving_square(12)
    path = tmp_path / "lossless.mkv"
    write_video(path, iter(frames), codec="ffv1", pixel_format="gbrp", frames_per_second=10)
    return path, frames


def test_rgb_planes_of_a_lossless_video_are_its_pixels(lossless):
    path, frames = lossless
    decoded = np.stack([np.stack(frame.planes, -1) for frame in decode_all(path)])
    np.testing.assert_array_equal(decoded, frames)


def test_times_are_those_of_the_container(lossless):
    path, _ = lossless
    assert [frame.time_seconds for frame in decode_all(path)] == pytest.approx(np.arange(12) / 10, abs=1e-3)


@pytest.mark.parametrize("wanted", [None, {3, 7}])
def test_times_count_from_the_first_frame_of_mpeg_ts(tmp_path, wanted):
    """In MPEG-TS the first frame is later than one second."""
    path = tmp_path / "late.ts"
    write_video(path, iter(moving_square(12)), frames_per_second=10)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time > 1
    times = {frame.index: frame.time_seconds for frame in decode_all(path, wanted=wanted)}
    assert times == {index: pytest.approx(index / 10) for index in (wanted or range(12))}


@pytest.mark.parametrize("offset", [-2, 5])
def test_times_count_from_the_first_frame_before_zero_too(tmp_path, offset):
    path = tmp_path / "shifted.mkv"
    with av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame(32, 32, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            frame.pts = number
            for packet in stream.encode(frame):
                packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                container.mux(packet)
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(offset / 10)
    assert [frame.time_seconds for frame in decode_all(path)] == pytest.approx(np.arange(6) / 10)


def test_only_wanted_frames_are_yielded_but_all_are_counted(lossless):
    path, _ = lossless
    decoding = Decoding(path, color="ycc", short_side=256)
    assert [frame.index for frame in decoding.frames({3, 7})] == [3, 7]
    assert decoding.num_frames == 12


@pytest.mark.parametrize(("value", "expected"), [(16, 0), (235, 255), (126, 128)])
def test_limited_range_luma_is_brought_to_full_range(tmp_path, value, expected):
    path = tmp_path / "grey.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame(32, 32, "yuv420p")
        for plane, level in zip(frame.planes, (value, 128, 128), strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    luma, blue, red = decode_all(path, color="ycc")[0].planes
    assert abs(int(luma[8, 8]) - expected) <= 1
    assert (int(blue[4, 4]), int(red[4, 4])) == (128, 128)


def test_frames_shrink_to_the_short_side_and_never_grow(tmp_path):
    path = tmp_path / "wide.mp4"
    write_video(path, iter(moving_square(3, width=200, height=100)))
    assert decode_all(path, short_side=50)[0].planes[0].shape == (50, 100)
    assert decode_all(path, short_side=256)[0].planes[0].shape == (100, 200)


def test_ycc_chroma_of_odd_sizes_is_rounded_up(tmp_path):
    path = tmp_path / "odd.mkv"
    write_video(path, iter(moving_square(2, width=51, height=37)), codec="ffv1", pixel_format="gbrp")
    assert [plane.shape for plane in decode_all(path, color="ycc")[0].planes] == [(37, 51), (19, 26), (19, 26)]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_video_comes_upright(tmp_path, turn):
    upright = tmp_path / "upright.mp4"
    frames = moving_square(4, width=64, height=48)
    write_video(upright, iter(frames), options={"crf": 1})
    turned = tmp_path / "turned.mp4"

    command = [ffmpeg_path(), "-loglevel", "error", "-display_rotation", str(turn), "-i", str(upright)]
    subprocess.run([*command, "-c", "copy", str(turned)], check=True)
    reference = np.rot90(np.stack(decode_all(upright)[0].planes, -1), turn // 90)
    frame = decode_all(turned)[0]
    assert frame.rotation_degrees == turn
    np.testing.assert_array_equal(np.stack(frame.planes, -1), reference)


def test_variable_frame_rate_is_noticed(tmp_path):
    path = tmp_path / "vfr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for time in (0, 40, 80, 300, 340, 380):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert probe(path).variable_frame_rate
    assert [frame.time_seconds for frame in decode_all(path)] == [0.0, 0.04, 0.08, 0.3, 0.34, 0.38]


def test_a_constant_frame_rate_is_not_variable(video_folder):
    assert not probe(video_folder / "wave" / "v00.mp4").variable_frame_rate


def bad_files(folder, good):
    content = good.read_bytes()
    yield "empty", b""
    yield "text", b"this is no video\n" * 100
    yield "without its index", content[: len(content) // 3]


def test_files_that_are_not_videos_are_unreadable(tmp_path, video_folder):
    for name, content in bad_files(tmp_path, video_folder / "wave" / "v00.mp4"):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        with pytest.raises(UnreadableVideoError) as error:
            decode_all(path)
        assert error.value.stage in ("open", "decode")
        assert str(tmp_path) not in error.value.reason


def test_a_fifo_is_refused_at_once(tmp_path):
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    with pytest.raises(UnreadableVideoError, match="not a regular file"):
        probe(path)


def test_audio_alone_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(UnreadableVideoError, match="no video stream"):
        probe(path)


def test_half_a_fast_start_file_is_unreadable(tmp_path):
    path = tmp_path / "fast.mp4"
    write_video(path, iter(moving_square(60)), options={"movflags": "faststart", "crf": 10})
    content = path.read_bytes()
    assert len(decode_all(path)) == 60
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(UnreadableVideoError):
        decode_all(path)


def test_the_real_clips_decode_whole():
    if not REAL_CLIPS.is_dir():
        pytest.skip("the real clips are missing")
    counts = {path.name: len(decode_all(path, color="ycc")) for path in sorted(REAL_CLIPS.iterdir())}
    assert counts == {"apply_eye_makeup.avi": 164, "arm_wrestling.mp4": 280, "flipping_pancake.mkv": 310}


def test_times_of_an_avi_with_b_frames_are_ordered(tmp_path):
    path = tmp_path / "b.avi"
    write_video(path, iter(moving_square(20)), codec="mpeg4", frames_per_second=25, options={"bf": 2})
    assert [frame.time_seconds for frame in decode_all(path)] == pytest.approx(np.arange(20) / 25)
