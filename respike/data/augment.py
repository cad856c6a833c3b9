"""Augmentation: one crop, flip and resize for the key frames and the events of a clip together."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from respike.data.crops import View
from respike.sample import EventClip


def write_view(clip: EventClip, view: View, keys: NDArray[np.uint8], residuals: NDArray[np.int16]) -> None:
    """Cut and resize a clip into arrays that are there already, such as rows of a batch.

    `keys` is uint8 RGB `[N, 3, S, S]`, `residuals` int16 `[N, R, 3, S, S]`, in 8-bit units and the stored colour,
    chroma brought to the size of luma; S is the size in pixels.
    """
    size = keys.shape[-1]
    for picture, out in zip(clip.keys, keys, strict=True):
        # decoded pictures are stored row by row with channels last; the transpose costs nothing before the resize
        resized = _resize(_cut(picture.transpose(1, 2, 0), view, 1), size, flip=view.flip)
        for channel in range(3):
            cv2.extractChannel(resized, channel, out[channel])
    factor = 1 if clip.planes[1].shape == clip.planes[0].shape else 2
    for channel, plane in enumerate(clip.planes):
        halved = factor if channel else 1
        for events_of_group, out in zip(plane, residuals, strict=True):
            for events, residual in zip(events_of_group, out[:, channel], strict=True):
                cut = _cut(events, view, halved)
                # scale before the resize: between two events lie grey levels that no whole number of events can say
                scaled = np.multiply(cut, np.int16(clip.threshold), dtype=np.int16)
                _resize(scaled, size, flip=view.flip, out=residual)


def _cut(picture: NDArray[Any], view: View, factor: int) -> NDArray[Any]:
    top, left = view.top // factor, view.left // factor
    bottom, right = -(-(view.top + view.height) // factor), -(-(view.left + view.width) // factor)
    return picture[top:bottom, left:right]


def _resize(picture: NDArray[Any], size: int, *, flip: bool, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Bring to `size` and mirror where asked; the result stands in `out` where it is given."""
    if picture.shape[:2] != (size, size):
        # averaging where it shrinks by more than half, else thin structures fall between the samples
        shrinks = min(picture.shape[:2]) > 2 * size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, (size, size), dst=None if flip else out, interpolation=method))
        if not flip:
            return picture
    if flip:
        return np.asarray(cv2.flip(picture, 1, dst=out))
    if out is None:
        return picture
    out[:] = picture
    return out
