"""Cropping: the kinds of crops that training draws, and the usual sizes, known to data and zoo alike."""

from typing import Literal, get_args

CropKind = Literal["resized", "multi-scale"]
CROP_KINDS: tuple[CropKind, ...] = get_args(CropKind)
# shares of the frame's area, the smaller first: random resized crops, as published for UCF101 and HMDB51
CROP_SCALE = (0.08, 1.0)
# shares of the short side, falling: multi-scale crops, as published for Kinetics
CROP_SIDES = (1.0, 0.875, 0.75, 0.66)
