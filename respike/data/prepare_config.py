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

# settings that older shards do not record: left out if they have the old behaviour, so that fingerprints stay the same
OMITTED_DEFAULTS = {"eval_clips": 1, "square_pixels": False}


# a video that gives no frame for this long is skipped
DEFAULT_VIDEO_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Config):
    """How raw videos become shards. It is saved with the output and compared before a run is resumed."""

    stride: Annotated[int, option("Frames in a group: one key frame, the rest residuals.", ge=2)] = 4
    clip_length: Annotated[int, option("Frames in a clip, a multiple of the stride.", ge=2)] = 16
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
    square_pixels: Annotated[bool, option("Scale the width of videos whose pixels are not square, as players do.")] = (
        False
    )
    threshold: Annotated[
        int, option("Contrast threshold of events in grey levels; 1 is exact.", metavar="θ", ge=1, le=MAX_THRESHOLD)
    ] = 8
    color: Annotated[Color, option("Planes that events are computed on.")] = "ycc"
    key_quality: Annotated[int, option("JPEG quality of key frames.", ge=1, le=100)] = 90
    videos_per_shard: Annotated[int, option("Listed videos in a shard.", ge=1)] = 64
    seed: Annotated[int, option("Order of videos in shards, training draws, splits.", ge=0)] = 0
    keep_partial: Annotated[bool, option("Keep the part of a damaged video that comes before the damage.")] = False

    def check(self) -> None:
        """Raise SettingError if a clip is not made of whole groups, or if sampling settings contradict each other."""
        if self.clip_length % self.stride:
            below = self.clip_length // self.stride * self.stride
            raise SettingError(
                f"clip_length {self.clip_length} is no multiple of stride {self.stride}",
                f"the nearest are {below or self.stride} and {below + self.stride}",
                setting="clip_length",
            )
        # SamplingSettings checks itself
        _ = self.clip_sampling

    @property
    def clip_sampling(self) -> SamplingSettings:
        """The settings that choose frames."""
        return SamplingSettings(
            clip_length=self.clip_length,
            sampling=self.sampling,
            clip_step=self.clip_step,
            clips_per_video=self.clips_per_video,
            eval_clips=self.eval_clips,
            frame_stride=self.frame_stride,
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, without those that equal `OMITTED_DEFAULTS`."""
        values = dataclasses.asdict(self)
        return {
            name: value
            for name, value in values.items()
            if name not in OMITTED_DEFAULTS or value != OMITTED_DEFAULTS[name]
        }
