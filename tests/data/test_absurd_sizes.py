"""Absurd dimensions in a video header are refused before memory is taken for them."""

import subprocess
import sys
from pathlib import Path

import pytest
from respike.data.video_writer import ffmpeg_path, write_video

from tests.conftest import moving_square

WIDTH, HEIGHT = 320, 256
# decodes a file; prints by how many bytes the peak of memory grew, and the error
PROGRAM = """
import resource, sys
from pathlib import Path
from respike.data.video_reader import Decoding, probe
from respike.common.errors import UnreadableVideoError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = "nothing"
try:
    probe(Path(sys.argv[1]))
    list(Decoding(Path(sys.argv[1]), color="ycc", short_side=256).frames())
except UnreadableVideoError as error:
    said = f"{error.stage}: {error.reason}"
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, said)
"""


def absurd(number: int, num_bytes: int, order: str) -> bytes:
    """A size to replace WIDTH or HEIGHT: close to 30,000 pixels, in two or four bytes."""
    return (30_000 if number == WIDTH else 28_000).to_bytes(num_bytes, order)


def in_matroska(content: bytes) -> bytes:
    for number, tag in ((WIDTH, b"\xb0\x82"), (HEIGHT, b"\xba\x82")):
        assert content.count(tag + number.to_bytes(2, "big")) == 1
        content = content.replace(tag + number.to_bytes(2, "big"), tag + absurd(number, 2, "big"))
    return content


def in_pairs(num_bytes: int, order: str, first: int, second: int):
    def patch(content: bytes) -> bytes:
        before = first.to_bytes(num_bytes, order) + second.to_bytes(num_bytes, order)
        assert before in content
        return content.replace(before, absurd(first, num_bytes, order) + absurd(second, num_bytes, order))

    return patch


def in_each_jpeg(content: bytes) -> bytes:
    # the start of a frame: marker, length, 8 bits, height, width
    before = b"\xff\xc0\x00\x11\x08" + HEIGHT.to_bytes(2, "big") + WIDTH.to_bytes(2, "big")
    assert before in content
    return content.replace(before, before[:5] + absurd(HEIGHT, 2, "big") + absurd(WIDTH, 2, "big"))


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "patch", "error"),
    [
        ("header.mkv", "ffv1", "yuv420p", in_matroska, "open: its header"),
        # the stream itself holds the size, and the container's is ignored
        ("header.webm", "libvpx-vp9", "yuv420p", in_matroska, "nothing"),
        ("header.mp4", "libx264", "yuv420p", in_pairs(2, "big", WIDTH, HEIGHT), "nothing"),
        ("header.avi", "mpeg4", "yuv420p", in_pairs(4, "little", WIDTH, HEIGHT), "nothing"),
        ("header.wmv", "wmv2", "yuv420p", in_pairs(4, "little", WIDTH, HEIGHT), "open: its header"),
        ("frames.mov", "mjpeg", "yuvj420p", in_each_jpeg, "decode: "),
        ("frames.avi", "mjpeg", "yuvj420p", in_each_jpeg, "decode: "),
    ],
)
def test_absurd_dimensions_take_no_memory(tmp_path, name, codec, pixel_format, patch, error):
    path = tmp_path / name
    write_video(path, iter(moving_square(6, width=WIDTH, height=HEIGHT)), codec=codec, pixel_format=pixel_format)
    whole = peak(path)
    assert whole[1] == "nothing"
    path.write_bytes(patch(path.read_bytes()))
    grown, said = peak(path)
    assert said.startswith(error)
    # one frame of that size would take 1.2 GB
    assert grown < whole[0] + 40_000_000


def test_a_stream_with_one_absurd_frame_is_refused(tmp_path):
    small, large, path = (tmp_path / f"{name}.h264" for name in ("small", "large", "both"))
    write_video(small, iter(moving_square(6)))
    # a real frame of 71 million pixels that the header of the container does not mention
    source = ["-f", "lavfi", "-i", "color=s=8448x8448:r=1:d=1", "-c:v", "libx264", "-preset", "ultrafast"]
    subprocess.run([ffmpeg_path(), "-loglevel", "error", *source, large], check=True)
    path.write_bytes(small.read_bytes() + large.read_bytes())
    grown, said = peak(path)
    assert said.startswith("decode: ")
    assert grown < 80_000_000


def peak(path: Path) -> tuple[int, str]:
    answer = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True)
    grown, _, said = answer.stdout.strip().partition(" ")
    return int(grown), said
