"""Video writer: encodes frames to a video file with ffmpeg, for the demo dataset and for tests."""

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from respike.common.errors import RespikeError


def ffmpeg_path() -> str:
    """Return the path of the ffmpeg program: the one of the `imageio-ffmpeg` wheel, else the one on PATH.

    The environment variable IMAGEIO_FFMPEG_EXE names another one. Raises RuntimeError where there is none.
    """
    # the wheel first: ffmpeg of a distribution may be too old or built without the codecs
    program = str(imageio_ffmpeg.get_ffmpeg_exe())
    return shutil.which(program) or program


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    frames_per_second: float = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str | int] | None = None,
) -> None:
    """Encode RGB `frames`, uint8 `[H, W, 3]` each, into `path`; its suffix decides the container.

    `options` are ffmpeg's output options, such as `{"crf": 23}`. Raises RespikeError where there are no frames, and,
    with the last message of ffmpeg, where ffmpeg fails.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise RespikeError(f"there are no frames to write to {path}", "give at least one frame")
    height, width = first.shape[:2]
    command = (
        ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=frames_per_second)
        # with `file:` no name can be mistaken for a protocol or an option
        .output(f"file:{path}", vcodec=codec, pix_fmt=pixel_format, threads=1, **(options or {}))
        .global_args("-loglevel", "error", "-nostdin")
        .overwrite_output()
        .compile(cmd=ffmpeg_path())
    )
    # a file and not a pipe: ffmpeg would wait for ever once it has filled a pipe that nobody reads
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log) as process:
            assert process.stdin is not None
            try:
                process.stdin.write(first.tobytes())
                for frame in remaining:
                    process.stdin.write(frame.tobytes())
                process.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg ended early; its reason is in the log
        if process.returncode == 0:
            return
        log.seek(0)
        messages = log.read().decode(errors="replace").strip()
    reason = messages.splitlines()[-1] if messages else f"exit code {process.returncode}"
    hint = "`respike doctor` shows which ffmpeg is used"
    if (no_space := os.strerror(errno.ENOSPC)) in messages:
        # ffmpeg puts the names of its own objects around it
        reason, hint = no_space, f"free space for {path.parent}, then run the same command again"
    raise RespikeError(f"ffmpeg could not write {path}: {reason}", hint)
