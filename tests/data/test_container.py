"""Container: files cut anywhere are found, whole files are accepted."""

import subprocess

import numpy as np
import pytest
from respike.common.errors import UnreadableVideoError
from respike.data.container import find_cut
from respike.data.video_reader import Decoding, probe
from respike.data.video_writer import ffmpeg_path, write_video

from tests.conftest import REAL_CLIPS, moving_square

KINDS = {
    "mkv": ("libx264", {}),
    "webm": ("libvpx-vp9", {"cpu-used": 8}),
    "avi": ("mpeg4", {"bf": 2}),
    "wmv": ("wmv2", {}),
    "fast.mp4": ("libx264", {"movflags": "faststart"}),
    "mp4": ("libx264", {}),
    "parts.mp4": ("libx264", {"movflags": "dash+global_sidx", "g": 5}),
    "fragments.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov", "g": 30}),
    "flv": ("flv", {}),
}


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    made = {}
    for kind, (codec, options) in KINDS.items():
        made[kind] = folder / f"video.{kind}"
        write_video(made[kind], iter(moving_square(60)), codec=codec, options=options)
    return made


def read(path) -> int:
    """Return the number of frames of a video, or raise UnreadableVideoError, as `prepare` does."""
    if (fault := probe(path).fault) is not None:
        raise UnreadableVideoError("decode", fault)
    return sum(1 for _ in Decoding(path, color="ycc", short_side=64).frames())


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_whole(whole_files, kind):
    assert read(whole_files[kind]) == 60


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fragments.mp4"])
def test_a_file_cut_anywhere_in_its_frames_is_unreadable(whole_files, tmp_path, kind):
    content = whole_files[kind].read_bytes()
    path = tmp_path / f"cut.{kind}"
    for share in np.linspace(0.1, 0.85, 26):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UnreadableVideoError):
            read(path)


def test_the_real_clips_cut_anywhere_are_found(tmp_path):
    if not REAL_CLIPS.is_dir():
        pytest.skip("the real clips are missing")
    for clip in REAL_CLIPS.iterdir():
        assert probe(clip).fault is None
        content = clip.read_bytes()
        path = tmp_path / f"cut{clip.suffix}"
        for share in (0.2, 0.35, 0.5, 0.65, 0.8, 0.95):
            path.write_bytes(content[: int(len(content) * share)])
            try:
                assert probe(path).fault is not None
            except UnreadableVideoError:
                assert clip.suffix == ".mp4"


def recorded_live(path, tmp_path, container):
    """Write a file whose sizes were never filled in, as a recorder that writes to a pipe does."""
    source = tmp_path / "source.mkv"
    write_video(source, iter(moving_square(60)), codec="mpeg4", options={"g": 10})
    command = [ffmpeg_path(), "-loglevel", "error", "-i", source, "-c", "copy", "-f", container, "pipe:1"]
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("container", ["matroska", "avi"])
def test_a_live_recording_is_whole_unless_cut_inside_a_frame(tmp_path, container):
    path = tmp_path / "live"
    recorded_live(path, tmp_path, container)
    assert find_cut(path, container) is None
    assert read(path) == 60
    content = path.read_bytes()
    # inside the first frame, which is larger
    path.write_bytes(content[:2500])
    assert "was cut" in find_cut(path, container)


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "asf", "unheard-of"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100_000, b"RIFF", b"RIFF\0\0\0\0AVI " + b"\0" * 5000, b"\xff" * 999])
def test_nonsense_is_left_to_the_decoder(tmp_path, container, content):
    path = tmp_path / "nonsense"
    path.write_bytes(content)
    cut = find_cut(path, container)
    assert cut is None or "was cut" in cut


def test_a_cut_last_packet_is_found_without_an_announced_size(tmp_path):
    path = tmp_path / "unsized.flv"
    write_video(path, iter(moving_square(60)), codec="flv", options={"flvflags": "no_duration_filesize"})
    assert probe(path).fault is None
    content = path.read_bytes()
    # the first frame is the largest by far
    path.write_bytes(content[:1500])
    assert find_cut(path, "flv") is None
    assert probe(path).fault == "packet 0 is corrupt"


def test_the_error_gives_the_missing_bytes(whole_files, tmp_path):
    path = tmp_path / "cut.mkv"
    content = whole_files["mkv"].read_bytes()
    path.write_bytes(content[:-1000])
    words = find_cut(path, "matroska,webm").replace(",", "").split()
    num_announced, num_available = (int(word) for word in words if word.isdigit())
    assert num_announced - num_available == 1000


def test_trailing_bytes_are_ignored(whole_files, tmp_path):
    for kind in ("mkv", "avi", "fast.mp4"):
        path = tmp_path / f"long.{kind}"
        path.write_bytes(whole_files[kind].read_bytes() + b"\0" * 1000)
        assert find_cut(path, {"mkv": "matroska,webm", "avi": "avi", "fast.mp4": "mov,mp4"}[kind]) is None
