"""The loader: shards → batches. Exact epochs, equal ranks, the same order on any number of workers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from respike.data.augment import View, centre_view, random_view, square_view, write_view
from respike.data.dataset import ShardDataset
from respike.errors import SettingError
from respike.memory import keep_memory
from respike.sample import Batch, EventClip

# one row of a batch: which clip, in which epoch it is augmented, whether it counts
_Row = tuple[int, int, bool]


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How batches are made; see `make_loader`."""

    batch_size: int
    training: bool
    image_size: int
    seed: int = 0
    flip: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    rank: int = 0
    world_size: int = 1
    crop: int = 0
    num_crops: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SettingError(f"batch_size is {self.batch_size}", "it must be at least 1")
        if self.image_size < 1:
            raise SettingError(f"image_size is {self.image_size}", "it must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise SettingError(f"rank is {self.rank} of {self.world_size}", "it must be from 0 to world_size - 1")
        if not 0 <= self.crop < self.num_crops:
            raise SettingError(f"crop is {self.crop} of {self.num_crops}", "it must be from 0 to num_crops - 1")


class ClipLoader:
    """Batches of one subset, epoch after epoch: a BatchSource that can stop and go on at the very next batch.

    Order comes from (seed, epoch), augmentation from (seed, epoch, clip): the number of workers changes neither.
    """

    def __init__(self, dataset: ShardDataset, settings: LoaderSettings, num_workers: int) -> None:
        self.dataset = dataset
        self.settings = settings
        self._order = _BatchOrder(len(dataset), settings)
        self._loader: DataLoader[Any] = DataLoader(
            _Batches(dataset, settings),
            batch_sampler=self._order,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=_begin_worker,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            # a forked worker would inherit the accelerator's and the decoder's threads
            multiprocessing_context="spawn" if num_workers > 0 else None,
        )

    def __len__(self) -> int:
        return self._order.num_batches

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            self._order.next_batch += 1
            yield batch
        self._order.epoch += 1
        self._order.next_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and augmentation of the next pass, from its first batch."""
        self._order.epoch, self._order.next_batch = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the pass stands: what was yielded so far."""
        return {"epoch": self._order.epoch, "next_batch": self._order.next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from `state_dict()`: the next batch is the one that would have come next."""
        self._order.epoch, self._order.next_batch = state["epoch"], state["next_batch"]


def make_loader(
    dataset: ShardDataset,
    *,
    batch_size: int,
    training: bool,
    image_size: int,
    num_workers: int = 0,
    seed: int = 0,
    flip: bool = True,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    rank: int = 0,
    world_size: int = 1,
    crop: int = 0,
    num_crops: int = 1,
) -> ClipLoader:
    """Make a loader of `batch_size` clips a rank, each `image_size` x `image_size` pixels.

    To train: shuffled, random resized crops of `crop_scale` of the area and, if `flip`, mirrored at random; what does
    not fill a batch on every rank is left out, other clips each epoch. To evaluate: in order, centre crops (or `crop`
    of `num_crops` squares along the longer side, see `square_view`), each clip once over all ranks, the last batch
    filled up with rows whose mask is False. Every rank takes the same number of batches. Raises SettingError on values
    out of range and where training has fewer clips than one step takes.
    """
    settings = LoaderSettings(
        batch_size=batch_size,
        training=training,
        image_size=image_size,
        seed=seed,
        flip=flip,
        crop_scale=crop_scale,
        rank=rank,
        world_size=world_size,
        crop=crop,
        num_crops=num_crops,
    )
    if training and len(dataset) < batch_size * world_size:
        raise SettingError(
            f"there are {len(dataset)} clips to train on, one step takes {batch_size * world_size}",
            f"choose a batch size of at most {len(dataset) // world_size}",
        )
    return ClipLoader(dataset, settings, num_workers)


class _BatchOrder(Sampler[list[_Row]]):
    """Which clips make which batch on this rank; known before a shard is opened."""

    def __init__(self, num_clips: int, settings: LoaderSettings) -> None:
        self._num_clips, self._settings = num_clips, settings
        self.epoch = 0
        self.next_batch = 0
        step = settings.batch_size * settings.world_size
        self.num_batches = num_clips // step if settings.training else -(-num_clips // step)

    def __iter__(self) -> Iterator[list[_Row]]:
        settings = self._settings
        rows = self._rows()
        step = settings.batch_size * settings.world_size
        for number in range(self.next_batch, self.num_batches):
            first = number * step + settings.rank * settings.batch_size
            yield rows[first : first + settings.batch_size]

    def __len__(self) -> int:
        return self.num_batches - self.next_batch

    def _rows(self) -> list[_Row]:
        if self._settings.training:
            # a fresh permutation each epoch, so the remainder that is cut off is another one each time
            order = np.random.default_rng([self._settings.seed, self.epoch]).permutation(self._num_clips)
            return [(int(number), self.epoch, True) for number in order]
        step = self._settings.batch_size * self._settings.world_size
        padding = self.num_batches * step - self._num_clips
        return [(number, 0, True) for number in range(self._num_clips)] + [(0, 0, False)] * padding


class _Batches(Dataset[Batch]):
    """Batches, as workers make them."""

    def __init__(self, dataset: ShardDataset, settings: LoaderSettings) -> None:
        self._dataset, self._settings = dataset, settings

    def __getitems__(self, rows: Sequence[_Row]) -> Batch:
        """Make the batch of these rows; torch's loader asks for all of a batch at once by this name."""
        clips = ((clip, self._choose_view(clip, row), row[2]) for row in rows for clip in [self._dataset[row[0]]])
        return _assemble(clips, len(rows), self._settings.image_size)

    def _choose_view(self, clip: EventClip, row: _Row) -> View:
        settings, (number, epoch, _) = self._settings, row
        height, width = clip.keys.shape[-2:]
        if not settings.training:
            return square_view(height, width, settings.crop, settings.num_crops)
        generator = np.random.default_rng([settings.seed, epoch, number])
        return random_view(height, width, generator, flip=settings.flip, scale=settings.crop_scale)


def _assemble(clips: Iterable[tuple[EventClip, View, bool]], num_rows: int, image_size: int) -> Batch:
    """Augment clips straight into their rows: arrays of their own, copied into a batch, take a third longer."""
    infos, counted = [], []
    for place, (clip, view, counts) in enumerate(clips):
        if place == 0:
            color, (num_groups, num_residuals) = clip.color, clip.planes[0].shape[:2]
            keys = np.empty((num_rows, num_groups, 3, image_size, image_size), np.uint8)
            residuals = np.empty((num_rows, num_groups, num_residuals, 3, image_size, image_size), np.int16)
        write_view(clip, view, keys[place], residuals[place])
        infos.append(clip.info)
        counted.append(counts)
    return Batch(
        keys=torch.from_numpy(keys),
        residuals=torch.from_numpy(residuals),
        color=color,
        labels=torch.tensor([info.label for info in infos], dtype=torch.int64),
        video_ids=tuple(info.video for info in infos),
        clip_indices=torch.tensor([info.clip_index for info in infos], dtype=torch.int64),
        mask=torch.tensor(counted, dtype=torch.bool),
    )


def make_batch(clips: Sequence[EventClip], image_size: int) -> Batch:
    """Clips as `make_loader` gives them to evaluate: the centre square, resized to `image_size`; every row counts.

    The clips have one shape and one colour.
    """
    rows = ((clip, centre_view(*clip.keys.shape[-2:]), True) for clip in clips)
    return _assemble(rows, len(clips), image_size)


def _begin_worker(number: int) -> None:
    keep_memory()


def _as_it_is(batch: Any) -> Any:
    # torch collates lists of rows; here the batch is whole
    return batch
