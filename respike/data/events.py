"""Residual events: frames → signed events against their group's key frame. numpy and SIMD, no loops over pixels.

An event is `trunc((x - k) / θ)` on 8-bit samples, the answer of an event camera with contrast threshold θ; so
`|(x - k) - θ e| < θ`, and θ = 1 loses nothing.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from respike.errors import SettingError

MAX_THRESHOLD = 255


def check_threshold(threshold: int) -> None:
    """Raise SettingError unless `threshold` is a whole number of grey levels from 1 to 255."""
    if not 1 <= threshold <= MAX_THRESHOLD:
        raise SettingError(f"threshold is {threshold}", f"it must be a whole number from 1 to {MAX_THRESHOLD}")


def event_dtype(threshold: int) -> np.dtype[Any]:
    """The type events are stored in: int8, or int16 where θ = 1 lets them reach ±255."""
    return np.dtype(np.int16 if threshold < 2 else np.int8)


def residual_events(
    frame: NDArray[np.uint8], key_frame: NDArray[np.uint8], threshold: int, out: NDArray[np.signedinteger[Any]]
) -> None:
    """Write the events of one plane, `[H, W]` uint8 both, against the same plane of the key frame into `out`.

    `out` is `[H, W]` of `event_dtype(threshold)`; its values are in steps of `threshold`.
    """
    if threshold == 1:
        np.subtract(frame, key_frame, out=out, dtype=np.int16)
        return
    # saturating differences in both directions: one of the two is always 0, and each stays within 8 bits,
    # so the whole pass runs on bytes; 255 // 2 = 127 fits int8
    brighter, darker = cv2.subtract(frame, key_frame), cv2.subtract(key_frame, frame)
    step = np.uint8(threshold)
    np.floor_divide(brighter, step, out=brighter)
    np.floor_divide(darker, step, out=darker)
    np.subtract(brighter, darker, out=out.view(np.uint8))
