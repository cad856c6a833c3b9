"""Video writer: which ffmpeg is used, and what happens where it cannot write."""

import os
from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.data import video_writer
from respike.data.video_writer import ffmpeg_path, write_video

from tests.conftest import moving_square


def make_program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_an_old_ffmpeg_first_on_path_is_not_used(tmp_path, monkeypatch):
    program = make_program(tmp_path / "bin" / "ffmpeg", "echo ffmpeg version 5.1; exit 1")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert Path(ffmpeg_path()) != program
    write_video(tmp_path / "video.mp4", moving_square(2))
    assert (tmp_path / "video.mp4").stat().st_size > 0


def test_no_frames_are_an_error_and_leave_no_file(tmp_path):
    with pytest.raises(RespikeError, match="there are no frames"):
        write_video(tmp_path / "video.mp4", iter(()))
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(60)
def test_many_messages_of_ffmpeg_do_not_block(tmp_path, monkeypatch):
    # more than a pipe holds, before the first frame is read
    program = make_program(
        tmp_path / "bin" / "ffmpeg",
        "i=0; while [ $i -lt 3000 ]; do echo 'a message of sixty characters, as a codec may print many of' >&2; "
        "i=$((i+1)); done; cat > /dev/null; echo the last message >&2; exit 1",
    )
    monkeypatch.setattr(video_writer, "ffmpeg_path", lambda: str(program))
    with pytest.raises(RespikeError, match="the last message"):
        write_video(tmp_path / "video.mp4", moving_square(30))


def test_the_reason_of_ffmpeg_is_in_the_error(tmp_path):
    with pytest.raises(RespikeError, match=r"ffmpeg could not write .*video\.mp4: .*Encoder not found"):
        write_video(tmp_path / "video.mp4", moving_square(2), codec="nonsense")
