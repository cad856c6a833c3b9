"""Odd videos: what is stored of an unusual file is what a current ffmpeg shows of it."""

import subprocess

import av
import numpy as np
import pytest
from respike.common.errors import UnreadableVideoError
from respike.data.clip_encoder import stream_clips
from respike.data.prepare_config import PrepareConfig
from respike.data.shard import decode_info, encode_info
from respike.data.video_reader import Decoding, check_header, probe
from respike.data.video_writer import ffmpeg_path, write_video

from tests.conftest import moving_square

FRAMES = moving_square(24, width=96, height=64)


def ffmpeg(*arguments):
    subprocess.run([ffmpeg_path(), "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def decode_all(path, color="rgb", **settings):
    return list(Decoding(path, color=color, short_side=256, **settings).frames())


def clips_of(path, **settings):
    """Return the clips that `prepare` would store of a video."""

    class Taker(list):
        take, restart = list.append, list.clear

    taker = Taker()
    stream_clips(path, PrepareConfig(**settings), taker)
    return taker


def shown_by_ffmpeg(path):
    """Return the frames that the ffmpeg program shows of a video: uint8 RGB [T, H, W, 3]."""
    first = decode_all(path)[0].planes[0].shape
    command = [ffmpeg_path(), "-loglevel", "error", "-i", path, "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(shown, np.uint8).reshape(-1, *first, 3)


# streams


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A video, a small preview, a picture and a sound, to be put together."""
    folder = tmp_path_factory.mktemp("pieces")
    write_video(folder / "video.mp4", iter(FRAMES), options={"crf": 18})
    write_video(folder / "preview.mp4", iter(moving_square(6, width=64, height=48)), frames_per_second=5)
    ffmpeg("-f", "lavfi", "-i", "color=red:s=300x300", "-frames:v", 1, folder / "cover.jpg")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", folder / "sound.m4a")
    return folder


def sizes_of(path):
    check_header(path)
    info = probe(path)
    frames = decode_all(path)
    height, width = frames[0].planes[0].shape
    assert (info.width, info.height, info.num_packets) == (width, height, len(frames))
    return len(frames), width, height


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_before_the_video_is_not_the_video(pieces, tmp_path, suffix):
    path = tmp_path / f"film.{suffix}"
    order = ["-i", pieces / "cover.jpg", "-i", pieces / "video.mp4", "-map", 0, "-map", 1]
    ffmpeg(*order, "-c", "copy", "-disposition:v:0", "attached_pic", path)
    assert sizes_of(path) == (24, 96, 64)


def test_a_song_with_a_cover_is_no_video(pieces, tmp_path):
    path = tmp_path / "song.mp4"
    order = ["-i", pieces / "sound.m4a", "-i", pieces / "cover.jpg", "-map", 0, "-map", 1]
    ffmpeg(*order, "-c", "copy", "-disposition:v:0", "attached_pic", path)
    for read in (probe, check_header, decode_all):
        with pytest.raises(UnreadableVideoError, match="only an attached picture"):
            read(path)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("default", 0), (6, 64, 48)),
        ((0, "default"), (24, 96, 64)),
        # of equals the larger one, as ffmpeg chooses
        ((0, 0), (24, 96, 64)),
        (("default", "default"), (24, 96, 64)),
    ],
)
def test_the_stream_flagged_default_is_chosen(pieces, tmp_path, flags, expected):
    path = tmp_path / "two.mkv"
    order = ["-i", pieces / "preview.mp4", "-i", pieces / "video.mp4", "-map", "0:v", "-map", "1:v", "-c", "copy"]
    ffmpeg(*order, "-disposition:v:0", flags[0], "-disposition:v:1", flags[1], path)
    assert sizes_of(path) == expected


# orientation

# the display matrix of each orientation: the numbers a, b, c, d, with y pointing down
MATRICES = {
    "as coded": (1, 0, 0, 1),
    "turned left": (0, -1, 1, 0),
    "turned half": (-1, 0, 0, -1),
    "turned right": (0, 1, -1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed across": (0, -1, -1, 0),
}


def with_matrix(path, out, numbers):
    """Write an MP4 again with another matrix in the header of its video track."""
    content = path.read_bytes()
    a, b, c, d = (number << 16 for number in numbers)
    matrices = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    usual, wanted = (b"".join(each.to_bytes(4, "big", signed=True) for each in matrix) for matrix in matrices)
    start = content.index(b"tkhd")
    assert usual in content[start : start + 100]
    out.write_bytes(content[:start] + content[start:].replace(usual, wanted, 1))
    return out


@pytest.mark.parametrize("name", MATRICES)
def test_a_display_matrix_is_applied_as_ffmpeg_does(pieces, tmp_path, name):
    path = with_matrix(pieces / "video.mp4", tmp_path / "turned.mp4", MATRICES[name])
    frames = decode_all(path)
    decoded = np.stack([np.stack(frame.planes, -1) for frame in frames])
    shown = shown_by_ffmpeg(path).astype(int)
    assert decoded.shape == shown.shape
    # the two scalers round colours differently, and a mirrored picture differs by far more
    assert np.abs(decoded - shown).mean() < 4
    # the recorded facts lead from the coded to the stored pictures
    coded = np.stack(decode_all(pieces / "video.mp4")[0].planes, -1)
    source = coded[:, ::-1] if frames[0].mirrored else coded
    np.testing.assert_array_equal(decoded[0], np.rot90(source, frames[0].rotation_degrees // 90))


@pytest.mark.parametrize("color", ["ycc", "rgb"])
def test_a_mirrored_video_is_recorded_in_its_sample(pieces, tmp_path, color):
    path = with_matrix(pieces / "video.mp4", tmp_path / "mirrored.mp4", MATRICES["upside down"])
    info = clips_of(path, color=color)[0].info
    assert (info.mirrored, info.rotation_degrees) == (True, 180)
    assert b"mirrored" in encode_info(info)
    assert b"mirrored" not in encode_info(clips_of(pieces / "video.mp4")[0].info)
    assert decode_info(encode_info(info)) == info


def test_a_slanted_display_matrix_counts_as_the_nearest_turn(pieces, tmp_path):
    path = tmp_path / "slanted.mp4"
    ffmpeg("-display_rotation", 80, "-i", pieces / "video.mp4", "-c", "copy", path)
    assert decode_all(path)[0].rotation_degrees == 90


# times


def even(num_frames, frames_per_second=25):
    return pytest.approx([number / frames_per_second for number in range(num_frames)], abs=1e-6)


@pytest.fixture
def stream_without_times(tmp_path):
    """An H.264 elementary stream under a video's name."""
    write_video(tmp_path / "raw.h264", iter(FRAMES))
    return (tmp_path / "raw.h264").rename(tmp_path / "raw.mp4")


def with_few_times(path, out, every):
    """Write an MPEG-TS again, with the time of each `every`-th frame only."""
    content = bytearray(path.read_bytes())
    num_frames = 0
    for at in range(0, len(content), 188):
        start = content.find(b"\0\0\1\xe0", at, at + 188)
        if content[at + 1] & 0x40 and start > 0:
            if num_frames % every:
                content[start + 7] &= 0x3F
                length = content[start + 8]
                content[start + 9 : start + 9 + length] = b"\xff" * length
            num_frames += 1
    out.write_bytes(content)
    return out


def test_frames_without_times_are_counted(stream_without_times):
    frames = decode_all(stream_without_times)
    assert [frame.time_seconds for frame in frames] == even(24)
    info = probe(stream_without_times)
    assert (info.seconds, info.variable_frame_rate) == (pytest.approx(24 / 25), False)
    sample = clips_of(stream_without_times)[0].info
    assert sample.counted_times
    assert sample.times_seconds == even(16)
    assert b'"counted_times":true' in encode_info(sample)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("every", [5, 12, 1000])
def test_missing_times_are_filled_in(tmp_path, every, b_frames):
    source = tmp_path / "source.ts"
    write_video(source, iter(FRAMES), options={"bf": b_frames})
    path = with_few_times(source, tmp_path / "few.ts", every)
    times = [frame.time_seconds for frame in decode_all(path)]
    if not b_frames:
        assert times == even(24)
        assert clips_of(path)[0].info.counted_times
    assert len(times) == 24
    assert min(np.diff(times)) > 0
    assert not clips_of(source)[0].info.counted_times


def test_times_that_run_backwards_are_counted(tmp_path):
    one, path = tmp_path / "one.ts", tmp_path / "twice.ts"
    write_video(one, iter(FRAMES), codec="mpeg2video")
    # counters of MPEG-TS are not checked in a program stream
    ffmpeg("-i", one, "-c", "copy", tmp_path / "one.mpg")
    path = tmp_path / "twice.mpg"
    path.write_bytes((tmp_path / "one.mpg").read_bytes() * 2)
    assert [frame.time_seconds for frame in decode_all(path)] == even(48)
    assert probe(path).seconds == pytest.approx(48 / 25)
    assert [clip.info.counted_times for clip in clips_of(path)] == [False, True, True]


def test_empty_chunks_of_an_avi_take_time(tmp_path):
    whole, path = tmp_path / "whole.avi", tmp_path / "vfr.avi"
    write_video(whole, iter(FRAMES), codec="mpeg4")
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts = packet.dts = packet.dts + (10 if packet.dts >= 8 else 0)
                packet.stream = stream
                out.mux(packet)
    times = [number / 25 for number in (*range(8), *range(18, 34))]
    assert [frame.time_seconds for frame in decode_all(path)] == pytest.approx(times)
    assert probe(path).variable_frame_rate
    assert probe(path).seconds == pytest.approx(34 / 25)
    assert not clips_of(path)[0].info.counted_times
