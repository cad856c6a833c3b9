"""Batch facts: what makes a batch of the bytes of its pixels; small, so that workers send it beside them."""

import math
from dataclasses import dataclass

import torch

from respike.color import Color
from respike.sample import Batch


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """All of a batch but its pixels."""

    num_groups: int
    num_residuals: int
    image_size: int
    color: Color
    labels: tuple[int, ...]
    video_ids: tuple[str, ...]
    clip_indices: tuple[int, ...]
    mask: tuple[bool, ...]
    crop: int

    def batch(self, pixels: torch.Tensor) -> Batch:
        """The batch whose pixels are these bytes."""
        keys, residuals = split_pixels(pixels, len(self.labels), self.num_groups, self.num_residuals, self.image_size)
        return Batch(
            keys=keys,
            residuals=residuals,
            color=self.color,
            labels=torch.tensor(self.labels, dtype=torch.int64),
            video_ids=self.video_ids,
            clip_indices=torch.tensor(self.clip_indices, dtype=torch.int64),
            mask=torch.tensor(self.mask, dtype=torch.bool),
            crop=self.crop,
        )


def split_pixels(
    pixels: torch.Tensor, num_rows: int, num_groups: int, num_residuals: int, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and residuals of a batch in its bytes; residuals first, whose numbers take two."""
    shape = (num_rows, num_groups, num_residuals, 3, size, size)
    num_bytes = 2 * math.prod(shape)
    keys = pixels[num_bytes:].view(num_rows, num_groups, 3, size, size)
    return keys, pixels[:num_bytes].view(torch.int16).view(shape)
