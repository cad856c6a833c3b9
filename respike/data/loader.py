"""Loader: shards to batches. Exact epochs, equal ranks, the same order on any number of workers."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from respike.common.errors import SettingError
from respike.common.processes import keep_memory
from respike.common.text import counted
from respike.data.dataset import ShardDataset
from respike.data.shared_batches import BatchBytes, BatchFacts, BatchMemory, make_anywhere, split_pixels
from respike.data.transforms import View, centre_view, multi_scale_view, random_view, square_view, write_view
from respike.types import CROP_KINDS, CROP_SCALE, CROP_SIDES, Batch, CropKind, EventClip

# how many of each video's stored clips an epoch of training shows
EpochClips = int | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How batches are made; see `make_loader`. Raises SettingError on a value that is not allowed."""

    batch_size: int
    training: bool
    image_size: int
    seed: int = 0
    flip: bool = True
    crop: CropKind = "resized"
    crop_scale: tuple[float, float] = CROP_SCALE
    crop_sides: tuple[float, ...] = CROP_SIDES
    rank: int = 0
    world_size: int = 1
    num_crops: int = 1
    eval_crop: float = 1.0
    epoch_clips: EpochClips = "all"

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "num_crops"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "it must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise SettingError(f"rank is {self.rank} of {self.world_size}", "it must be from 0 to world_size - 1")
        if self.training and self.num_crops > 1:
            raise SettingError(f"num_crops is {self.num_crops} in training", "training draws one crop of a clip")
        if self.epoch_clips != "all":
            if not isinstance(self.epoch_clips, int) or self.epoch_clips < 1:
                raise SettingError(f"epoch_clips is {self.epoch_clips!r}", "give a whole number from 1, or all")
            if not self.training:
                raise SettingError(
                    f"epoch_clips is {self.epoch_clips} in an evaluation", "choose its clips by `spread_clips`"
                )
        if self.crop not in CROP_KINDS:
            raise SettingError(f"crop is {self.crop!r}", f"choose from {', '.join(CROP_KINDS)}")
        if not 0 < self.eval_crop <= 1:
            raise SettingError(f"eval_crop is {self.eval_crop}", "give a share of the short side above 0, up to 1")
        is_falling = all(one > other for one, other in itertools.pairwise((*self.crop_sides, 0.0)))
        if not self.crop_sides or self.crop_sides[0] > 1 or not is_falling:
            raise SettingError(f"crop_sides is {self.crop_sides}", "give falling shares of the short side, up to 1")

    def choose_views(self, height: int, width: int, number: int, epoch: int) -> tuple[View, ...]:
        """The views that clip `number`, of frames `height` x `width`, gives in an epoch: one to train."""
        if not self.training:
            places = range(self.num_crops)
            return tuple(square_view(height, width, place, self.num_crops, self.eval_crop) for place in places)
        generator = np.random.default_rng([self.seed, epoch, number])
        if self.crop == "multi-scale":
            return (multi_scale_view(height, width, generator, flip=self.flip, sides=self.crop_sides),)
        return (random_view(height, width, generator, flip=self.flip, scale=self.crop_scale),)


# one row of a batch: which clip, in which epoch it is augmented, whether it counts
Row = tuple[int, int, bool]


def count_epoch_clips(videos: Sequence[str], epoch_clips: EpochClips) -> int:
    """How many clips an epoch of training draws from; `videos` names the video of each stored clip."""
    if epoch_clips == "all":
        return len(videos)
    return sum(min(count, epoch_clips) for count in Counter(videos).values())


class BatchOrder(Sampler[list[Row]]):
    """The rows of each batch of a pass, from `next_group` on; of `num_groups`, the same on every rank.

    `videos` names the video of each clip, in the order of the clips' numbers. To train, an epoch's clips are drawn by
    (seed, epoch): all, or `epoch_clips` of each video, or all it has where it has no more.
    A group is what is decoded together: the batches of all crops of the same clips.
    """

    def __init__(self, videos: Sequence[str], settings: LoaderSettings) -> None:
        self._num_clips, self._settings = len(videos), settings
        # the video of each clip by number; not for whole epochs, which draw none: it takes 0.2 s for a million clips
        self._videos: NDArray[np.int64] | None = None
        if settings.epoch_clips != "all":
            numbers = {video: number for number, video in enumerate(dict.fromkeys(videos))}
            self._videos = np.fromiter((numbers[video] for video in videos), np.int64, len(videos))
        self.epoch = 0
        self.next_group = 0
        step = settings.batch_size * settings.world_size
        num_clips = count_epoch_clips(videos, settings.epoch_clips)
        self.num_groups = num_clips // step if settings.training else -(-num_clips // step)

    def __iter__(self) -> Iterator[list[Row]]:
        settings, epoch = self._settings, self.epoch
        step = settings.batch_size * settings.world_size
        # a fresh order each epoch, so the remainder that is cut off is another one each time
        order = self._shuffle() if settings.training else None
        for group in range(self.next_group, self.num_groups):
            first = group * step + settings.rank * settings.batch_size
            places = range(first, first + settings.batch_size)
            if order is not None:
                yield [(int(number), epoch, True) for number in order[places.start : places.stop]]
            else:
                # clip 0 fills up the last batch, and does not count
                yield [(place, 0, True) if place < self._num_clips else (0, 0, False) for place in places]

    def __len__(self) -> int:
        return self.num_groups - self.next_group

    def _shuffle(self) -> NDArray[np.int64]:
        """The numbers of the epoch's clips, in random order."""
        generator = np.random.default_rng([self._settings.seed, self.epoch])
        order = generator.permutation(self._num_clips)
        most = self._settings.epoch_clips
        if most == "all" or self._videos is None:
            return order
        # brought together by video, the clips of each stay shuffled: the first of them are a fair draw
        order = order[np.argsort(self._videos[order], kind="stable")]
        videos = self._videos[order]
        drawn = order[np.arange(len(order)) - np.searchsorted(videos, videos) < most]
        return generator.permutation(drawn)


CROPS = (1, 3)
_FORM = re.compile(r"(all|[0-9]+)(?:[x×]([0-9]+))?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Views:
    """Clips of a video (None: all that are stored) times square crops of each clip, along its longer side."""

    clips: int | None = None
    crops: int = 1

    def __post_init__(self) -> None:
        if self.clips is not None and self.clips < 1:
            raise SettingError(f"{self.clips} clips of a video", "take at least 1")
        if self.crops not in CROPS:
            raise SettingError(f"{self.crops} crops of a clip", f"choose from {', '.join(map(str, CROPS))}")

    def __str__(self) -> str:
        return f"{'all' if self.clips is None else self.clips}x{self.crops}"


def parse_views(text: str) -> Views:
    """Read `CLIPS` or `CLIPSxCROPS`, such as `1`, `10x3` or `allx3`. Raises SettingError where it is neither."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise SettingError(f"views are {text!r}", "write CLIPS or CLIPSxCROPS, such as 1, 3, 10x3 or allx3")
    clips = None if match[1].lower() == "all" else int(match[1])
    return Views(clips=clips, crops=int(match[2] or 1))


def spread_clips(dataset: ShardDataset, num_clips: int | None) -> ShardDataset:
    """The part with `num_clips` clips of each video, or all it has where it has no more (None: all of every video).

    Of n stored clips those are taken that stand in the middle of `num_clips` equal parts: number
    `⌊(2i + 1) · n / (2 · num_clips)⌋` for i from 0, so that one alone is the middle one.
    """
    if num_clips is None:
        return dataset
    of_video: dict[str, list[int]] = {}
    for number, row in enumerate(dataset.clips):
        of_video.setdefault(row.video, []).append(number)
    chosen = []
    for numbers in of_video.values():
        count = min(num_clips, len(numbers))
        chosen += [numbers[(2 * place + 1) * len(numbers) // (2 * count)] for place in range(count)]
    return dataset.select(sorted(chosen))


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
