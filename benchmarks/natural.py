"""Synthetic videos that a codec compresses like those of UCF101 and Kinetics.

They have a textured background with the 1/f spectrum of photographs, a moving camera, moving objects and noise. A frame
takes about as many bytes as in real clips (1.4 to 2.3 KB).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from respike.data.video_writer import write_video

_MARGIN = 64


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Video format of a data set: container, codec, size in pixels, frame rate and number of frames."""

    suffix: str
    codec: str
    options: dict[str, str | int]
    width: int
    height: int
    frames_per_second: int
    num_frames: int


KINDS = {
    "ucf101": Kind(
        suffix=".avi",
        codec="mpeg4",
        options={"q:v": 4, "vtag": "XVID"},
        width=320,
        height=240,
        frames_per_second=25,
        num_frames=180,
    ),
    "kinetics": Kind(
        suffix=".mp4",
        codec="libx264",
        options={"crf": 18},
        width=340,
        height=256,
        frames_per_second=30,
        num_frames=300,
    ),
}


def make_natural_clip(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write a video in the format `name` of `KINDS` into `folder`; return its path."""
    kind = KINDS[name]
    path = folder / f"{name}{seed}{kind.suffix}"
    write_video(
        path, _frames(kind, seed), frames_per_second=kind.frames_per_second, codec=kind.codec, options=kind.options
    )
    return path


def _frames(kind: Kind, seed: int) -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    ground = _texture(random, kind.height + 2 * _MARGIN, kind.width + 2 * _MARGIN, mean=110, deviation=45)
    objects = [_texture(random, 120 - 30 * number, 60 + 10 * number, mean=150, deviation=30) for number in range(2)]
    grain = random.normal(0, 1.2, (8, kind.height, kind.width, 1)).astype(np.float32)
    for number in range(kind.num_frames):
        seconds = number / kind.frames_per_second
        # a hand-held camera: it drifts and shakes by fractions of a pixel
        down = _MARGIN * (1 + 0.25 * np.sin(0.5 * seconds) + 0.01 * np.sin(9 * seconds))
        right = _MARGIN * (1 + 0.5 * np.sin(0.3 * seconds + seed) + 0.01 * np.sin(11 * seconds))
        frame = _window(ground, down, right, kind.height, kind.width)
        for index, picture in enumerate(objects):
            speed = 1.5 + index
            top = kind.height * (0.45 + 0.2 * np.sin(speed * seconds + index)) - picture.shape[0] / 2
            left = kind.width * (0.4 + 0.2 * index + 0.15 * np.sin(0.7 * speed * seconds)) - picture.shape[1] / 2
            edged = np.pad(picture, ((1, 1), (1, 1), (0, 0)), "edge")
            moved = _window(edged, 1 - top % 1, 1 - left % 1, *picture.shape[:2])
            frame[int(top) : int(top) + len(moved), int(left) : int(left) + moved.shape[1]] = moved
        yield (frame + grain[number * 3 % 8]).clip(0, 255).astype(np.uint8)


def _texture(random: Any, height: int, width: int, *, mean: float, deviation: float) -> NDArray[np.float32]:
    """Return noise `[H, W, 3]` whose amplitude falls with frequency, with correlated colours, like a photograph."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width)) ** 1.5
    size = height, width
    planes = [np.fft.irfft2(np.fft.rfft2(random.normal(size=size)) * fall, size) for _ in range(4)]
    light, *tints = [plane / plane.std() for plane in planes]
    pictures = [mean + deviation * (0.95 * light + 0.3 * tint) for tint in tints]
    return np.stack(pictures, axis=-1).astype(np.float32)


def _window(picture: NDArray[np.float32], top: float, left: float, height: int, width: int) -> NDArray[np.float32]:
    """Return the part of a picture at fractional coordinates, by linear interpolation."""
    row, column = int(top), int(left)
    part = picture[row : row + height + 1, column : column + width + 1]
    down, right = np.float32(top - row), np.float32(left - column)
    across = part[:, :-1] * (1 - right) + part[:, 1:] * right
    window: NDArray[np.float32] = across[:-1] * (1 - down) + across[1:] * down
    return window
