"""Augmentation: one crop, flip and resize for the key frames and the events of a clip together."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from respike.data.crops import View
from respike.sample import EventClip

# planes of events in one picture: OpenCV takes half the time for four channels of one as for four pictures, and rounds
# them alike; with two, or more than four, it takes another way, twice as long
_NUM_TOGETHER = 4


def write_view(clip: EventClip, view: View, keys: NDArray[np.uint8], residuals: NDArray[np.int16]) -> None:
    """Cut and resize a clip into arrays that are there already, such as rows of a batch.

    `keys` is uint8 RGB `[N, 3, S, S]`, `residuals` int16 `[N, R, 3, S, S]`, in 8-bit units and the stored colour,
    chroma brought to the size of luma; S is the size in pixels. Each picture of both is contiguous.
    """
    for picture, out in zip(_cut(clip.keys, view, 1), keys, strict=True):
        # decoded pictures are stored row by row with channels last; the transpose costs nothing before the resize
        _write_resized(picture.transpose(1, 2, 0), view, list(out))
    if clip.planes[1].shape == clip.planes[0].shape:
        _write_residuals(clip, view, (0, 1, 2), 1, residuals)
    else:
        _write_residuals(clip, view, (0,), 1, residuals)
        _write_residuals(clip, view, (1, 2), 2, residuals)


def _write_residuals(
    clip: EventClip, view: View, channels: Sequence[int], factor: int, residuals: NDArray[np.int16]
) -> None:
    """Write the residuals of the channels that are of one size, `factor` times smaller than luma."""
    pairs: list[tuple[NDArray[Any], NDArray[np.int16]]] = []
    for channel in channels:
        # rows in one piece: OpenCV merges them several times as fast
        cut = np.ascontiguousarray(_cut(clip.planes[channel], view, factor))
        for events_of_group, residuals_of_group in zip(cut, residuals[:, :, channel], strict=True):
            pairs += zip(events_of_group, residuals_of_group, strict=True)
    busy = []
    for events, residual in pairs:
        if cv2.hasNonZero(events):
            busy.append((events, residual))
        else:
            residual.fill(0)
    num_single = len(busy) % _NUM_TOGETHER
    parts = [[pair] for pair in busy[:num_single]]
    parts += [busy[first : first + _NUM_TOGETHER] for first in range(num_single, len(busy), _NUM_TOGETHER)]
    for part in parts:
        # scale before the resize: between two events lie grey levels that no whole number of events can say
        scaled = cv2.merge([events for events, _ in part]).astype(np.int16)
        scaled *= np.int16(clip.threshold)
        _write_resized(scaled, view, [residual for _, residual in part])


def _cut(pictures: NDArray[Any], view: View, factor: int) -> NDArray[Any]:
    """The part `[…, h, w]` of pictures `[…, H, W]`, which are `factor` times smaller than luma."""
    top, left = view.top // factor, view.left // factor
    bottom, right = -(-(view.top + view.height) // factor), -(-(view.left + view.width) // factor)
    return pictures[..., top:bottom, left:right]


def _write_resized(picture: NDArray[Any], view: View, channels: Sequence[NDArray[Any]]) -> None:
    """Bring a picture `[h, w]` or `[h, w, C]` to the size of `channels`, its planes, and mirror where asked."""
    size = channels[0].shape[-1]
    if picture.shape[:2] != (size, size):
        # averaging where it shrinks by more than half, else thin structures fall between the samples
        shrinks = min(picture.shape[:2]) > 2 * size
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if view.flip:
        picture = cv2.flip(picture, 1)
    # straight into them, since they have the type and the size that it asks for
    cv2.split(picture, channels)
