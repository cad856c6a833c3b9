"""Y′CbCr and RGB: the one linear map (full-range BT.601, as in JPEG) that shards and network share.

Source: ITU-T T.871 (JFIF), section 7; luma weights of ITU-R BT.601.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Color = Literal["ycc", "rgb"]
COLORS: tuple[Color, ...] = get_args(Color)

# Rows R, G, B; columns Y′, Cb, Cr, where chroma is a difference from neutral. A residual, being a difference of
# two frames, is mapped by these nine numbers alone: the offsets of 128 cancel.
YCC_TO_RGB: tuple[tuple[float, float, float], ...] = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)


def ycc_difference_to_rgb(difference: NDArray[np.generic]) -> NDArray[np.float32]:
    """Map Y′CbCr differences to RGB differences.

    `difference` is `[..., 3, H, W]` in 8-bit units; the result is float32 of the same shape and units.
    """
    matrix = np.asarray(YCC_TO_RGB, dtype=np.float32)
    mapped: NDArray[np.float32] = np.einsum("rc,...chw->...rhw", matrix, difference.astype(np.float32))
    return mapped
