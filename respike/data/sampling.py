"""Clip sampling: which frame indices make a clip. Integer arithmetic, no I/O."""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from respike.common.errors import SettingError
from respike.types import Clip

Sampling = Literal["dense", "uniform"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How clips are cut from a video.

    `dense`: `clip_length` consecutive frames; the next clip begins `clip_step` frames later (None: `clip_length`).
    `uniform`: one frame from each of `clip_length` equal segments. A training video gives `clips_per_video` seeded
    draws, an evaluation video `eval_clips` fixed views, where a single view takes the middle of each segment. Short
    videos give fewer clips where draws or views would repeat. `frame_stride` n first keeps every n-th frame.
    Raises SettingError on values below 1, and on several `eval_clips` with `dense`, which stores every clip anyway.
    """

    clip_length: int = 16
    sampling: Sampling = "dense"
    clip_step: int | None = None
    clips_per_video: int = 4
    eval_clips: int = 1
    frame_stride: int = 1

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise SettingError(
                f"sampling is {self.sampling!r}", f"choose from {', '.join(SAMPLINGS)}", setting="sampling"
            )
        for name in ("clip_length", "clips_per_video", "eval_clips", "frame_stride"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "it must be at least 1", setting=name)
        if self.clip_step is not None and self.clip_step < 1:
            raise SettingError(f"clip_step is {self.clip_step}", "it must be at least 1", setting="clip_step")
        if self.eval_clips > 1 and self.sampling == "dense":
            raise SettingError(
                f"eval_clips is {self.eval_clips}, sampling is dense",
                "dense stores every clip of a video; for more clips choose a smaller clip_step",
                setting="eval_clips",
            )


def plan_clips(
    num_frames: int, settings: SamplingSettings, *, training: bool, video_id: str, seed: int = 0
) -> list[Clip]:
    """Choose the clips of a video of `num_frames` decoded frames.

    Returns clips with indices of source frames; none where there are no frames. A video shorter than a clip gives one
    clip that repeats its last frame. `seed` and `video_id` decide the training draws of `uniform` and nothing else.
    For evaluation, view i of n = `eval_clips` takes the point (i + ½) / n of each segment. Draws or views of a short
    video with the same frames are stored as one clip.
    """
    num_thinned = -(-num_frames // settings.frame_stride)
    if num_thinned == 0:
        return []
    if num_thinned < settings.clip_length:
        chosen = [list(range(num_thinned)) + [num_thinned - 1] * (settings.clip_length - num_thinned)]
    elif settings.sampling == "dense":
        chosen = _dense_clips(num_thinned, settings.clip_length, settings.clip_step or settings.clip_length)
    elif training:
        chosen = _uniform_draws(num_thinned, settings, video_id, seed)
    else:
        chosen = _uniform_views(num_thinned, settings.clip_length, settings.eval_clips)
    num_padded = max(0, settings.clip_length - num_thinned)
    return [
        Clip(index=index, frame_indices=tuple(frame * settings.frame_stride for frame in clip), num_padded=num_padded)
        for index, clip in enumerate(chosen)
    ]


def _dense_clips(num_frames: int, clip_length: int, clip_step: int) -> list[list[int]]:
    return [list(range(start, start + clip_length)) for start in range(0, num_frames - clip_length + 1, clip_step)]


def _segments(num_frames: int, clip_length: int) -> list[tuple[int, int]]:
    """Return equal segments as (first, end); each holds a frame, since the video is at least as long as a clip."""
    edges = [segment * num_frames // clip_length for segment in range(clip_length + 1)]
    return list(itertools.pairwise(edges))


def _uniform_views(num_frames: int, clip_length: int, num_views: int) -> list[list[int]]:
    segments = _segments(num_frames, clip_length)
    # floor(first + length x (2 view + 1) / (2 n)), in integers so that every machine rounds the same
    return _distinct(
        [first + (end - first) * (2 * view + 1) // (2 * num_views) for first, end in segments]
        for view in range(num_views)
    )


def _uniform_draws(num_frames: int, settings: SamplingSettings, video_id: str, seed: int) -> list[list[int]]:
    # seeded by the video id and not by its number, so that a missing video does not change the others
    digest = hashlib.blake2b(f"{seed}/{video_id}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    segments = _segments(num_frames, settings.clip_length)
    return _distinct(
        [int(generator.integers(first, end)) for first, end in segments] for _ in range(settings.clips_per_video)
    )


def _distinct(chosen: Iterable[list[int]]) -> list[list[int]]:
    return [list(frames) for frames in dict.fromkeys(map(tuple, chosen))]
