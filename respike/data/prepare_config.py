"""PrepareConfig: every setting that decides the bytes of the shards."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from respike.common.errors import SettingError
from respike.data.event_codec import check_threshold
from respike.data.sampling import Sampling, SamplingSettings
from respike.types import COLORS, Color

# settings younger than some shards: told only where they say something, so that those shards keep their fingerprint
UNTOLD_SETTINGS = {"eval_clips": 1}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How raw videos become shards; saved with the output and compared before a resume.

    `stride` frames a group; `short_side` the most pixels of the short side; `threshold` θ in grey levels; `color` the
    planes that events are taken on; `key_quality` of the JPEG, 1 to 100; `videos_per_shard` and `seed` decide which
    videos stand in which shard; with `keep_partial` a damaged video gives the clips before the damage. The rest is
    SamplingSettings. Raises SettingError on a value that is not allowed.
    """

    stride: int = 4
    clip_length: int = 16
    sampling: Sampling = "dense"
    clip_step: int | None = None
    clips_per_video: int = 4
    eval_clips: int = 1
    frame_stride: int = 1
    short_side: int = 256
    threshold: int = 8
    color: Color = "ycc"
    key_quality: int = 90
    videos_per_shard: int = 64
    seed: int = 0
    keep_partial: bool = False

    def __post_init__(self) -> None:
        if self.stride < 2:
            raise SettingError(f"stride is {self.stride}", "it must be at least 2: a key frame and one residual")
        if self.clip_length % self.stride:
            raise SettingError(
                f"clip_length {self.clip_length} is no multiple of stride {self.stride}",
                f"the nearest are {self.clip_length // self.stride * self.stride or self.stride} and "
                f"{(self.clip_length // self.stride + 1) * self.stride}",
            )
        if self.color not in COLORS:
            raise SettingError(f"color is {self.color!r}", f"choose from {', '.join(COLORS)}")
        if not 1 <= self.key_quality <= 100:
            raise SettingError(f"key_quality is {self.key_quality}", "it must be from 1 to 100")
        for name, least in (("short_side", 16), ("videos_per_shard", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} is {getattr(self, name)}", f"it must be at least {least}")
        check_threshold(self.threshold)
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
