"""LoaderSettings: how batches are made, and so which views of a clip they show."""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from respike.cropping import CROP_KINDS, CROP_SCALE, CROP_SIDES, CropKind
from respike.data.crops import View, multi_scale_view, random_view, square_view
from respike.errors import SettingError

# how many of each video's stored clips an epoch of training shows
EpochClips = int | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How batches are made; see `make_loader`. Raises SettingError on a value that is not allowed."""

    batch_size: int
    training: bool
    image_size: int
    seed: int = 0
    flip: bool = True
    crop: CropKind = "resized"
    crop_scale: tuple[float, float] = CROP_SCALE
    crop_sides: tuple[float, ...] = CROP_SIDES
    rank: int = 0
    world_size: int = 1
    num_crops: int = 1
    eval_crop: float = 1.0
    epoch_clips: EpochClips = "all"

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "num_crops"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "it must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise SettingError(f"rank is {self.rank} of {self.world_size}", "it must be from 0 to world_size - 1")
        if self.training and self.num_crops > 1:
            raise SettingError(f"num_crops is {self.num_crops} in training", "training draws one crop of a clip")
        if self.epoch_clips != "all":
            if not isinstance(self.epoch_clips, int) or self.epoch_clips < 1:
                raise SettingError(f"epoch_clips is {self.epoch_clips!r}", "give a whole number from 1, or all")
            if not self.training:
                raise SettingError(
                    f"epoch_clips is {self.epoch_clips} in an evaluation", "choose its clips by `spread_clips`"
                )
        if self.crop not in CROP_KINDS:
            raise SettingError(f"crop is {self.crop!r}", f"choose from {', '.join(CROP_KINDS)}")
        if not 0 < self.eval_crop <= 1:
            raise SettingError(f"eval_crop is {self.eval_crop}", "give a share of the short side above 0, up to 1")
        is_falling = all(one > other for one, other in itertools.pairwise((*self.crop_sides, 0.0)))
        if not self.crop_sides or self.crop_sides[0] > 1 or not is_falling:
            raise SettingError(f"crop_sides is {self.crop_sides}", "give falling shares of the short side, up to 1")

    def choose_views(self, height: int, width: int, number: int, epoch: int) -> tuple[View, ...]:
        """The views that clip `number`, of frames `height` x `width`, gives in an epoch: one to train."""
        if not self.training:
            places = range(self.num_crops)
            return tuple(square_view(height, width, place, self.num_crops, self.eval_crop) for place in places)
        generator = np.random.default_rng([self.seed, epoch, number])
        if self.crop == "multi-scale":
            return (multi_scale_view(height, width, generator, flip=self.flip, sides=self.crop_sides),)
        return (random_view(height, width, generator, flip=self.flip, scale=self.crop_scale),)
