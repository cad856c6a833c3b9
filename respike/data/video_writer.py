"""Writing real video files with ffmpeg: for the demo data set and for tests, which want true encoded input."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from respike.common.errors import RespikeError


def ffmpeg_path() -> str:
    """The ffmpeg program: the machine's own, else the one of the `imageio-ffmpeg` wheel."""
    return shutil.which("ffmpeg") or str(imageio_ffmpeg.get_ffmpeg_exe())


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    frames_per_second: float = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str | int] | None = None,
) -> None:
    """Encode RGB `frames`, uint8 `[H, W, 3]` each, into `path`; its suffix names the container.

    `options` are ffmpeg's output options, such as `{"crf": 23}`. Raises RespikeError with ffmpeg's last line where it
    fails.
    """
    supply = iter(frames)
    first = next(supply)
    height, width = first.shape[:2]
    command = (
        ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=frames_per_second)
        # file: so that no name can be taken for a protocol or an option
        .output(f"file:{path}", vcodec=codec, pix_fmt=pixel_format, threads=1, **(options or {}))
        .global_args("-loglevel", "error", "-nostdin")
        .overwrite_output()
        .compile(cmd=ffmpeg_path())
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            process.stdin.write(first.tobytes())
            for frame in supply:
                process.stdin.write(frame.tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg gave up early; its reason comes below
        complaint = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        last = complaint.splitlines()[-1] if complaint else f"exit code {process.returncode}"
        hint = "`respike doctor` shows which ffmpeg is used"
        if (reason := os.strerror(errno.ENOSPC)) in complaint:
            # ffmpeg names its own objects around it
            last, hint = reason, f"free space for {path.parent}, then run the same command again"
        raise RespikeError(f"ffmpeg could not write {path}: {last}", hint)
