"""Types that data and zoo share: videos, clips, batches, facts about a dataset, colours and crops.

Letters of shapes: `B` batch, `N` groups of a clip, `R` residuals of a group, `T` = N · (R + 1) frames of a clip, `C`
channels, `H` height, `W` width. `h` and `w` are the height and width of one colour plane, which may be halved.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from respike.common.errors import RespikeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SUBSETS = ("train", "val", "test")

# in which colours residuals are stored: Y′CbCr, the colours of the video itself, or RGB
Color = Literal["ycc", "rgb"]
COLORS: tuple[Color, ...] = get_args(Color)

# how training crops are drawn; see `data.transforms`
CropKind = Literal["resized", "multi-scale"]
CROP_KINDS: tuple[CropKind, ...] = get_args(CropKind)
# random resized crops: smallest and largest share of the area, as published for UCF101 and HMDB51
CROP_SCALE = (0.08, 1.0)
# multi-scale crops: shares of the short side in falling order, as published for Kinetics
CROP_SIDES = (1.0, 0.875, 0.75, 0.66)


@dataclass(frozen=True, kw_only=True)
class VideoRef:
    """One video that a dataset lists.

    `video_id` is its path relative to the root of the dataset, with `/`. `path` is where it was found, None where it is
    missing. `label` indexes the classes of the dataset. `group` names the source that several videos share (`gXX` of
    UCF101, the film of HMDB51), None where the dataset has no groups.
    """

    video_id: str
    path: Path | None
    label: int
    class_name: str
    subset: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class VideoListing:
    """Everything that a dataset lists for one split: `classes` in label order, `videos` in a fixed order.

    `evaluation_subset` is the one to report scores on: `test`, or `val` for Kinetics. `warnings` are lines about
    oddities that do not stop the work.
    """

    dataset: str
    split: int | None
    evaluation_subset: str
    classes: tuple[str, ...]
    videos: tuple[VideoRef, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frames of a video that make one clip: T source indices; the last `num_padded` repeat its last frame."""

    index: int
    frame_indices: tuple[int, ...]
    num_padded: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What a shard stores about a clip besides its pixels.

    `frame_indices` and `times_seconds` are those of the T source frames. The frames were mirrored left to right if
    `mirrored`, then turned counter-clockwise by `rotation_degrees`, as the container asked. `width` and `height` are
    those of the coded video in pixels. `counted_times` is True if the file lacks usable times for some of the frames,
    so that these follow from the frame rate. `partial` is True if the video is damaged and only the part before the
    damage was kept.
    """

    video: str
    label: int
    class_name: str
    subset: str
    clip_index: int
    frame_indices: tuple[int, ...]
    times_seconds: tuple[float, ...]
    num_padded: int
    width: int
    height: int
    rotation_degrees: int = 0
    variable_frame_rate: bool = False
    group: str | None = None
    partial: bool = False
    mirrored: bool = False
    counted_times: bool = False


@dataclass(frozen=True, kw_only=True)
class EventClip:
    """One clip as key frames and residual events.

    `keys` is uint8 RGB `[N, 3, H, W]`. `planes` are the events of the three colour planes, int8 (int16 for θ = 1): for
    `rgb` three of `[N, R, H, W]`, for `ycc` luma `[N, R, H, W]` and two of chroma `[N, R, ceil(H/2), ceil(W/2)]`. An
    event times `threshold` (θ) is the residual in 8-bit units, rounded towards zero to a multiple of θ.
    """

    key: str
    keys: NDArray[np.uint8]
    planes: tuple[NDArray[np.signedinteger[Any]], ...]
    threshold: int
    color: Color
    info: ClipInfo

    @property
    def stride(self) -> int:
        """Frames of a group, including its key frame: R + 1."""
        return int(self.planes[0].shape[1]) + 1

    @property
    def density(self) -> float:
        """Share of the stored event samples that are not zero, 0 to 1."""
        return self.num_events / self.num_event_samples

    @property
    def num_events(self) -> int:
        """Number of stored event samples that are not zero."""
        return sum(int(np.count_nonzero(plane)) for plane in self.planes)

    @property
    def num_event_samples(self) -> int:
        """Number of stored event samples, zero or not."""
        return sum(int(plane.size) for plane in self.planes)

    def sparse(self) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """Return the events as sparse COO tensors, one for each plane, `[N, R, h, w]`, in steps of θ."""
        import torch

        first, second, third = (torch.tensor(plane).to_sparse() for plane in self.planes)
        return first, second, third

    def residuals(self) -> NDArray[np.int16]:
        """Return the residuals of the events, int16 `[N, R, 3, H, W]`, in 8-bit units and the stored colour.

        Chroma is brought to the size of luma by repeating each sample twice in each direction.
        """
        height, width = self.planes[0].shape[-2:]
        full = [
            plane
            if plane.shape[-2:] == (height, width)
            else plane.repeat(2, axis=-2)[..., :height, :].repeat(2, axis=-1)[..., :width]
            for plane in self.planes
        ]
        return np.stack(full, axis=2).astype(np.int16) * np.int16(self.threshold)

    def to_frames(self) -> NDArray[np.uint8]:
        """Rebuild the frames of the clip, uint8 RGB `[T, 3, H, W]`: key frames as stored, others within θ of them.

        The error of the JPEG key frame is added in each frame of its group.
        """
        residuals = self.residuals()
        rgb = ycc_difference_to_rgb(residuals) if self.color == "ycc" else residuals.astype(np.float32)
        others = np.clip(np.rint(self.keys[:, None] + rgb), 0, 255).astype(np.uint8)
        groups = np.concatenate([self.keys[:, None], others], axis=1)
        return groups.reshape(-1, *groups.shape[2:])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the loader gives to the network, as torch tensors.

    `keys` is uint8 RGB `[B, N, 3, H, W]`; `residuals` is int16 `[B, N, R, 3, H, W]`, in 8-bit units and in the colour
    `color`; `labels` is int64 `[B]`. `video_ids` and `clip_indices` (int64 `[B]`) say which clip each row is; `crop` is
    the number of the square crop that all rows show. `mask` is bool `[B]`, False on rows that only fill up the last
    batch of an evaluation.
    """

    keys: "Tensor"
    residuals: "Tensor"
    color: Color
    labels: "Tensor"
    video_ids: tuple[str, ...]
    clip_indices: "Tensor"
    mask: "Tensor"
    crop: int = 0

    def __len__(self) -> int:
        return len(self.video_ids)

    def to(self, device: "torch.device | str", *, non_blocking: bool = False) -> "Batch":
        """Return the batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; the DataLoader of torch calls this method."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, move: "Callable[[Tensor], Tensor]") -> "Batch":
        return replace(
            self,
            keys=move(self.keys),
            residuals=move(self.residuals),
            labels=move(self.labels),
            clip_indices=move(self.clip_indices),
            mask=move(self.mask),
        )


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The facts about a set of shards that a checkpoint stores about its training data.

    `settings` are those of `respike prepare` that decide the bytes of the shards. `fingerprint` is the SHA-256 of the
    index, which holds the SHA-256 of every shard.
    """

    dataset: str
    split: int | None
    evaluation_subset: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def stride(self) -> int:
        """Frames of a group, including its key frame: R + 1."""
        return int(self.settings["stride"])

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return asdict(self) | {"classes": list(self.classes), "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "DataSpec":
        """Make a spec from the result of `to_json`. Raises RespikeError that names a missing or unknown field."""
        try:
            return cls(**{**value, "classes": tuple(value["classes"])})
        except (KeyError, TypeError) as error:
            raise RespikeError(f"the data spec does not hold what it should: {error}") from error


class BatchSource(Protocol):
    """What training and scoring take batches from: the loader, or any other object with these methods."""

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""

    def __len__(self) -> int:
        """Return the number of batches of one epoch, the same on every rank."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next pass, which begins at its first batch."""


@runtime_checkable
class CountedSource(BatchSource, Protocol):
    """A BatchSource that knows what a complete pass shows, as the loader does."""

    @property
    def is_training(self) -> bool:
        """Whether clips are shuffled and augmented, and those that fill no batch left out; not for evaluation."""

    @property
    def num_views(self) -> int:
        """Rows that count in a complete evaluation, over all ranks: each crop of each clip."""


# rows R, G, B; columns Y′, Cb, Cr with chroma as the difference from neutral. A residual is a difference of two frames,
# so these nine numbers are enough: the offsets of 128 cancel.
YCC_TO_RGB: tuple[tuple[float, float, float], ...] = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)


def ycc_difference_to_rgb(difference: NDArray[np.generic]) -> NDArray[np.float32]:
    """Convert Y′CbCr differences `[..., 3, H, W]` in 8-bit units to RGB differences, float32 of the same shape.

    Source: full-range BT.601, the colours of JPEG (ITU-T T.871).
    """
    matrix = np.asarray(YCC_TO_RGB, dtype=np.float32)
    mapped: NDArray[np.float32] = np.einsum("rc,...chw->...rhw", matrix, difference.astype(np.float32))
    return mapped
