"""LoaderSettings: how batches are made, and so which views of a clip they show."""

from dataclasses import dataclass

import numpy as np

from respike.data.crops import (
    CROP_KINDS,
    CROP_SCALE,
    CROP_SIDES,
    CropKind,
    View,
    multi_scale_view,
    random_view,
    square_view,
)
from respike.errors import SettingError


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

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "num_crops"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "it must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise SettingError(f"rank is {self.rank} of {self.world_size}", "it must be from 0 to world_size - 1")
        if self.training and self.num_crops > 1:
            raise SettingError(f"num_crops is {self.num_crops} in training", "training draws one crop of a clip")
        if self.crop not in CROP_KINDS:
            raise SettingError(f"crop is {self.crop!r}", f"choose from {', '.join(CROP_KINDS)}")
        if not self.crop_sides or not all(0 < side <= 1 for side in self.crop_sides):
            raise SettingError(f"crop_sides is {self.crop_sides}", "give shares of the short side above 0, up to 1")

    def choose_views(self, height: int, width: int, number: int, epoch: int) -> tuple[View, ...]:
        """The views that clip `number`, of frames `height` x `width`, gives in an epoch: one to train."""
        if not self.training:
            return tuple(square_view(height, width, place, self.num_crops) for place in range(self.num_crops))
        generator = np.random.default_rng([self.seed, epoch, number])
        if self.crop == "multi-scale":
            return (multi_scale_view(height, width, generator, flip=self.flip, sides=self.crop_sides),)
        return (random_view(height, width, generator, flip=self.flip, scale=self.crop_scale),)
