"""The loader: shards → batches. Exact epochs, equal ranks, the same order on any number of workers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from respike.cropping import CROP_SCALE, CROP_SIDES, CropKind
from respike.data.augment import write_view
from respike.data.batch_facts import BatchFacts, split_pixels
from respike.data.batch_memory import BatchBytes, BatchMemory, make_anywhere
from respike.data.batch_order import BatchOrder, Row, count_epoch_clips
from respike.data.crops import View, centre_view
from respike.data.dataset import ShardDataset
from respike.data.loader_settings import EpochClips, LoaderSettings
from respike.errors import SettingError
from respike.memory import keep_memory
from respike.sample import Batch, EventClip
from respike.wording import counted


class ClipLoader:
    """Batches of one subset, epoch after epoch: a BatchSource that can stop and go on at the very next batch.

    Order comes from (seed, epoch), augmentation from (seed, epoch, clip): the number of workers changes neither. A pass
    begins at the epoch's first batch, whatever became of the one before, but right after `load_state_dict`. A pass that
    ends chooses the next epoch; one that is left in its midst does not, which is what `set_epoch` is for.
    """

    def __init__(self, dataset: ShardDataset, settings: LoaderSettings, num_workers: int) -> None:
        self.dataset = dataset
        self.settings = settings
        self._order = BatchOrder([row.video for row in dataset.clips], settings)
        self._epoch = self._next_batch = 0
        self._is_resuming = False
        # batches of several crops come together, so one group ahead is memory enough
        num_ahead = 2 if settings.num_crops == 1 else 1
        # and those that are looked at, and those that just were
        memory = BatchMemory(num_workers, (num_ahead + 2) * settings.num_crops) if num_workers else None
        self._loader: DataLoader[Any] = DataLoader(
            _BatchGroups(dataset, settings, memory),
            batch_sampler=self._order,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=_begin_worker,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            prefetch_factor=num_ahead if num_workers else None,
            # a forked worker would inherit the accelerator's and the decoder's threads
            multiprocessing_context="spawn" if num_workers > 0 else None,
        )

    def __len__(self) -> int:
        return self._order.num_groups * self.settings.num_crops

    @property
    def is_training(self) -> bool:
        """Whether it was made to train: shuffled, augmented, the remainder left out."""
        return self.settings.training

    @property
    def num_views(self) -> int:
        """Rows that count in a whole pass of an evaluation, over all ranks: each crop of each clip."""
        return len(self.dataset) * self.settings.num_crops

    def __iter__(self) -> Iterator[Batch]:
        # a pass that was left, as by `next(iter(loader))`, must not cost the next one its first clips
        if not self._is_resuming:
            self._next_batch = 0
        self._is_resuming = False
        self._order.epoch = self._epoch
        self._order.next_group, num_seen = divmod(self._next_batch, self.settings.num_crops)
        for group in self._loader:
            for batch in group[num_seen:]:
                self._next_batch += 1
                yield batch
            num_seen = 0
        self.set_epoch(self._epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and augmentation of the next pass, from its first batch."""
        self._epoch, self._next_batch, self._is_resuming = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Where the pass stands, or stood when it was left: what was yielded so far."""
        return {"epoch": self._epoch, "next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass go on from `state_dict()`: its first batch is the one that would have come next."""
        self._epoch, self._next_batch, self._is_resuming = state["epoch"], state["next_batch"], True


def make_loader(
    dataset: ShardDataset,
    *,
    batch_size: int,
    training: bool,
    image_size: int,
    num_workers: int = 0,
    seed: int = 0,
    flip: bool = True,
    crop: CropKind = "resized",
    crop_scale: tuple[float, float] = CROP_SCALE,
    crop_sides: tuple[float, ...] = CROP_SIDES,
    rank: int = 0,
    world_size: int = 1,
    num_crops: int = 1,
    eval_crop: float = 1.0,
    epoch_clips: EpochClips = "all",
) -> ClipLoader:
    """Make a loader of `batch_size` clips a rank, each `image_size` x `image_size` pixels.

    To train: shuffled, cut by random resized crops of `crop_scale` of the area (`crop` is `resized`) or by multi-scale
    crops whose sides are `crop_sides` of the short side (`multi-scale`, see `multi_scale_view`), and, if `flip`,
    mirrored at random; what does not fill a batch on every rank is left out, other clips each epoch. An epoch
    shows every stored clip once, or `epoch_clips` clips of each video, drawn anew each epoch. To evaluate: in
    order, centre crops, each clip once over all ranks, the last batch filled up with rows whose mask is False; with
    `num_crops` each batch comes so many times, decoded once, its `crop` counting the squares along the longer side
    (see `square_view`), whose side is `eval_crop` of the short one. Every rank takes the same number of batches.
    Raises SettingError on values out of range and where training has fewer clips than one step takes.
    """
    settings = LoaderSettings(
        batch_size=batch_size,
        training=training,
        image_size=image_size,
        seed=seed,
        flip=flip,
        crop=crop,
        crop_scale=crop_scale,
        crop_sides=crop_sides,
        rank=rank,
        world_size=world_size,
        num_crops=num_crops,
        eval_crop=eval_crop,
        epoch_clips=epoch_clips,
    )
    _require_a_step(dataset, settings)
    return ClipLoader(dataset, settings, num_workers)


def _require_a_step(dataset: ShardDataset, settings: LoaderSettings) -> None:
    num_clips = count_epoch_clips([row.video for row in dataset.clips], settings.epoch_clips)
    num_together = settings.batch_size * settings.world_size
    if settings.training and num_clips < num_together:
        raise SettingError(
            f"the data has {counted(num_clips, 'clip')} to train on, one step takes {num_together}",
            f"choose a batch size of at most {num_clips // settings.world_size}",
        )


class _BatchGroups(Dataset[list[Any]]):
    """Batches of the same clips, one a crop: as they are, or as workers send them, in `memory`."""

    def __init__(self, dataset: ShardDataset, settings: LoaderSettings, memory: BatchMemory | None) -> None:
        self._dataset, self._settings, self._memory = dataset, settings, memory

    def __getitems__(self, rows: Sequence[Row]) -> list[Batch] | list[BatchBytes]:
        """Make the batches of these rows; torch's loader asks for all of them at once by this name."""
        make = self._memory.make if self._memory else make_anywhere
        made = _assemble(map(self._look, rows), len(rows), self._settings.image_size, make)
        if self._memory is None:
            return [facts.batch(one.content) for one, facts in made]
        for one, facts in made:
            one.finish(facts.batch)
        return [one for one, _ in made]

    def _look(self, row: Row) -> tuple[EventClip, tuple[View, ...], bool]:
        number, epoch, counts = row
        clip = self._dataset[number]
        height, width = clip.keys.shape[-2:]
        return clip, self._settings.choose_views(height, width, number, epoch), counts


def _assemble(
    clips: Iterable[tuple[EventClip, Sequence[View], bool]],
    num_rows: int,
    image_size: int,
    make: Callable[[int, int], list[BatchBytes]],
) -> list[tuple[BatchBytes, BatchFacts]]:
    """Augment clips straight into their rows: arrays of their own, copied into a batch, take a third longer."""
    infos, counted = [], []
    for place, (clip, views, counts) in enumerate(clips):
        if place == 0:
            color, (num_groups, num_residuals) = clip.color, clip.planes[0].shape[:2]
            num_bytes = num_rows * num_groups * (1 + 2 * num_residuals) * 3 * image_size**2
            memory = make(num_bytes, len(views))
            pixels = [
                tuple(
                    part.numpy() for part in split_pixels(one.content, num_rows, num_groups, num_residuals, image_size)
                )
                for one in memory
            ]
        for view, (keys, residuals) in zip(views, pixels, strict=True):
            write_view(clip, view, keys[place], residuals[place])
        infos.append(clip.info)
        counted.append(counts)
    return [
        (
            one,
            BatchFacts(
                num_groups=num_groups,
                num_residuals=num_residuals,
                image_size=image_size,
                color=color,
                labels=tuple(info.label for info in infos),
                video_ids=tuple(info.video for info in infos),
                clip_indices=tuple(info.clip_index for info in infos),
                mask=tuple(counted),
                crop=crop,
            ),
        )
        for crop, one in enumerate(memory)
    ]


def make_batch(clips: Sequence[EventClip], image_size: int, eval_crop: float = 1.0) -> Batch:
    """Clips as `make_loader` gives them to evaluate: the centre square, resized to `image_size`; every row counts.

    The clips have one shape and one colour; `eval_crop` is the square's side as a share of the short side.
    """
    height, width = clips[0].keys.shape[-2:]
    rows = ((clip, [centre_view(height, width, eval_crop)], True) for clip in clips)
    [(made, facts)] = _assemble(rows, len(clips), image_size, make_anywhere)
    return facts.batch(made.content)


def _begin_worker(number: int) -> None:
    keep_memory()


def _as_it_is(group: Any) -> Any:
    # torch collates lists of rows; here the batches are whole
    return group
