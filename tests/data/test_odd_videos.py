"""Odd videos: what is stored of an unusual file is what a current ffmpeg shows of it."""

import subprocess

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
