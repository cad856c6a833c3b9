"""Types shared by data and zoo: videos, clips, batches, data set facts, colors and crops."""

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


CropKind = Literal["resized", "multi-scale"]
CROP_KINDS: tuple[CropKind, ...] = get_args(CropKind)
# shares of the frame's area, the smaller first: random resized crops, as published for UCF101 and HMDB51
CROP_SCALE = (0.08, 1.0)
# shares of the short side, falling: multi-scale crops, as published for Kinetics
CROP_SIDES = (1.0, 0.875, 0.75, 0.66)


SUBSETS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class VideoRef:
    """One video that a dataset lists.

    `video_id` is its path relative to the dataset's root, with `/`; `path` is where it was found, None where it is
    missing; `label` indexes the dataset's classes; `group` names the source that several videos share (UCF101's
    `gXX`, HMDB51's film), None where the dataset knows of none.
    """

    video_id: str
    path: Path | None
    label: int
    class_name: str
    subset: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class VideoListing:
    """All that a dataset lists for one split: `classes` in label order, `videos` in a fixed order.

    `evaluation_subset` is the one that scores are made on (`test`, or Kinetics' `val`); `warnings` are oddities
    worth telling that do not stop the work.
    """

    dataset: str
    split: int | None
    evaluation_subset: str
    classes: tuple[str, ...]
    videos: tuple[VideoRef, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Which frames of a video make one clip: T source indices, the last `num_padded` of which repeat its last frame."""

    index: int
    frame_indices: tuple[int, ...]
    num_padded: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What a shard says of a clip beside its pixels.

    `frame_indices` and `times_seconds` are those of the T source frames, `rotation_degrees` what the container asked
    for (already applied, counter-clockwise), `width` and `height` the video's own in pixels, as coded. `partial` says
    that the video was damaged and only what came before the damage was kept.
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


@dataclass(frozen=True, kw_only=True)
class EventClip:
    """One clip as key frames and residual events.

    `keys` is uint8 RGB `[N, 3, H, W]`. `planes` are the events of the three colour planes, int8 (int16 where θ is 1):
    for `rgb` three of `[N, R, H, W]`; for `ycc` luma `[N, R, H, W]` and two of chroma `[N, R, ceil(H/2), ceil(W/2)]`.
    An event times `threshold` is the residual in 8-bit units, short of it by less than `threshold`.
    """

    key: str
    keys: NDArray[np.uint8]
    planes: tuple[NDArray[np.signedinteger[Any]], ...]
    threshold: int
    color: Color
    info: ClipInfo

    @property
    def stride(self) -> int:
        """Frames of a group, its key frame included."""
        return int(self.planes[0].shape[1]) + 1

    @property
    def density(self) -> float:
        """Share of the stored events that are not zero, 0 to 1."""
        return self.num_events / self.num_event_samples

    @property
    def num_events(self) -> int:
        """How many stored samples are not zero."""
        return sum(int(np.count_nonzero(plane)) for plane in self.planes)

    @property
    def num_event_samples(self) -> int:
        """How many samples are stored, zero or not."""
        return sum(int(plane.size) for plane in self.planes)

    def sparse(self) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """The events as three sparse COO tensors, one a plane `[N, R, h, w]`, of the planes' types, in steps of θ."""
        import torch

        first, second, third = (torch.tensor(plane).to_sparse() for plane in self.planes)
        return first, second, third

    def residuals(self) -> NDArray[np.int16]:
        """The residuals that the events stand for, int16 `[N, R, 3, H, W]`, in 8-bit units and the stored colour.

        Chroma is brought to the size of luma by repeating each sample twice in each direction.
        """
        height, width = self.planes[0].shape[-2:]
        full = [_repeat_to(plane, height, width) for plane in self.planes]
        return np.stack(full, axis=2).astype(np.int16) * np.int16(self.threshold)

    def to_frames(self) -> NDArray[np.uint8]:
        """The clip's frames again, uint8 RGB `[T, 3, H, W]`: keys as stored, others within θ and the JPEG's error."""
        residuals = self.residuals()
        rgb = ycc_difference_to_rgb(residuals) if self.color == "ycc" else residuals.astype(np.float32)
        others = np.clip(np.rint(self.keys[:, None] + rgb), 0, 255).astype(np.uint8)
        groups = np.concatenate([self.keys[:, None], others], axis=1)
        return groups.reshape(-1, *groups.shape[2:])


def _repeat_to(plane: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    if plane.shape[-2:] == (height, width):
        return plane
    return plane.repeat(2, axis=-2)[..., :height, :].repeat(2, axis=-1)[..., :width]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What crosses from the loader to the network, as torch tensors.

    `keys` uint8 RGB `[B, N, 3, H, W]`; `residuals` int16 `[B, N, R, 3, H, W]` in 8-bit units, in the colour `color`;
    `labels` int64 `[B]`; `video_ids` and `clip_indices` (int64 `[B]`) say where each row is from, `crop` which of a
    clip's squares all show; `mask` bool `[B]` is False on rows that only fill up an evaluation's last batch.
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
        """The same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; torch's DataLoader calls this by its name."""
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
    """What a set of shards is, in the few facts that a checkpoint must remember of what it was trained on.

    `settings` are those of `respike prepare` that decide the shards' bytes; `fingerprint` is the SHA-256 of the index,
    which holds the SHA-256 of every shard.
    """

    dataset: str
    split: int | None
    evaluation_subset: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def stride(self) -> int:
        """Frames of a group, its key frame included."""
        return int(self.settings["stride"])

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return asdict(self) | {"classes": list(self.classes), "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "DataSpec":
        """Read what `to_json` gave. Raises RespikeError that names a missing or unknown field."""
        try:
            return cls(**{**value, "classes": tuple(value["classes"])})
        except (KeyError, TypeError) as error:
            raise RespikeError(f"the data spec does not hold what it should: {error}") from error


class BatchSource(Protocol):
    """What training and scoring draw batches from: the loader, seen from the zoo."""

    def __iter__(self) -> Iterator[Batch]:
        """Go through one epoch."""

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next pass, from its first batch."""


@runtime_checkable
class CountedSource(BatchSource, Protocol):
    """A BatchSource that knows what a whole pass shows, as the loader does."""

    @property
    def is_training(self) -> bool:
        """Whether clips come shuffled and augmented, those that fill no batch left out: no way to evaluate."""

    @property
    def num_views(self) -> int:
        """Rows that count in a whole pass of an evaluation, over all ranks: each crop of each clip."""
