"""Odd videos: what is stored of an unusual file is what a current ffmpeg shows of it."""

import subprocess

import numpy as np
import pytest
from respike.common.errors import UnreadableVideoError
from respike.data.clip_encoder import stream_clips
from respike.data.prepare_config import PrepareConfig
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
