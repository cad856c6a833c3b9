"""PrepareConfig: every setting that decides the bytes of the shards."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from respike.common.config import Config, option
from respike.common.errors import SettingError
from respike.data.event_codec import MAX_THRESHOLD
from respike.data.sampling import Sampling, SamplingSettings
from respike.types import Color

# settings younger than some shards: told only where they say something, so that those shards keep their fingerprint
UNTOLD_SETTINGS = {"eval_clips": 1}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Config):
    """How raw videos become shards; saved with the output and compared before a resume."""

    stride: Annotated[int, option("Frames a group: one key frame, the rest residuals.", ge=2)] = 4
    clip_length: Annotated[int, option("Frames a clip, a multiple of the stride.", ge=2)] = 16
    sampling: Annotated[Sampling, option("dense: clips one after another; uniform: frames spread over the video.")] = (
        "dense"
    )
    clip_step: Annotated[
        Annotated[int, Meta(ge=1)] | None, option("dense: frames from clip to clip; none: the clip length.")
    ] = None
    clips_per_video: Annotated[int, option("uniform: clips drawn from a training video.", ge=1)] = 4
    eval_clips: Annotated[int, option("uniform: clips stored of a video to evaluate.", ge=1)] = 1
    frame_stride: Annotated[int, option("Use every n-th frame of the video.", ge=1)] = 1
    short_side: Annotated[int, option("Largest short side in pixels; videos are never scaled up.", ge=16)] = 256
    threshold: Annotated[
        int, option("Contrast threshold of events in grey levels; 1 is exact.", metavar="θ", ge=1, le=MAX_THRESHOLD)
    ] = 8
    color: Annotated[Color, option("Planes that events are computed on.")] = "ycc"
    key_quality: Annotated[int, option("JPEG quality of key frames.", ge=1, le=100)] = 90
    videos_per_shard: Annotated[int, option("Listed videos a shard.", ge=1)] = 64
    seed: Annotated[int, option("Order of videos in shards, training draws, splits.", ge=0)] = 0
    keep_partial: Annotated[bool, option("Keep the part of a damaged video that comes before the damage.")] = False

    def check(self) -> None:
        """Check that a clip is made of whole groups. Raises SettingError."""
        if self.clip_length % self.stride:
            below = self.clip_length // self.stride * self.stride
            raise SettingError(
                f"clip_length {self.clip_length} is no multiple of stride {self.stride}",
                f"the nearest are {below or self.stride} and {below + self.stride}",
                setting="clip_length",
            )
        _ = self.clip_sampling

    @property
    def clip_sampling(self) -> SamplingSettings:
        """The part that chooses frames."""
        return SamplingSettings(
            clip_length=self.clip_length,
            sampling=self.sampling,
            clip_step=self.clip_step,
            clips_per_video=self.clips_per_video,
            eval_clips=self.eval_clips,
            frame_stride=self.frame_stride,
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values; those of `UNTOLD_SETTINGS` only where they are others."""
        told = dataclasses.asdict(self).items()
        return {name: value for name, value in told if name not in UNTOLD_SETTINGS or value != UNTOLD_SETTINGS[name]}
