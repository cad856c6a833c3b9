"""Loader: shards to batches, with exact epochs, equal ranks, and one order for any number of workers."""

import errno
import itertools
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from respike.common.errors import RespikeError, RespikeWarning, SettingError
from respike.common.processes import count_open_files, keep_memory, raise_file_limit
from respike.common.text import counted
from respike.data.dataset import ShardDataset
from respike.data.shared_batches import (
    HOW_TO_SHARE,
    BatchBytes,
    BatchFacts,
    BatchMemory,
    allocate_private,
    split_pixels,
)
from respike.data.transforms import View, centre_view, multi_scale_view, random_view, square_view, write_view
from respike.types import CROP_KINDS, CROP_SCALE, CROP_SIDES, Batch, CropKind, EventClip

EpochClips = int | Literal["all"]
"""How many of the stored clips of each video an epoch of training shows."""

# a row of a batch: number of the clip, epoch of its augmentation, whether it counts
_Row = tuple[int, int, bool]

CROPS = (1, 3)
# files that a worker takes in the main process: its queue and its process. A batch in shared memory takes one more
_NUM_WORKER_FILES = 4
# files for all else: logs, checkpoints, shards, an accelerator
_NUM_OTHER_FILES = 24
_HOW_TO_OPEN_MORE = "raise the limit, such as `ulimit -n 4096`, or use fewer workers"
_VIEWS_FORM = re.compile(r"(all|[0-9]+)(?:[x×]([0-9]+))?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How batches are made, as `make_loader` describes. Raises SettingError on a value that is not allowed."""

    batch_size: int
    training: bool
    image_size: int
    seed: int
    flip: bool
    crop: CropKind
    crop_scale: tuple[float, float]
    crop_sides: tuple[float, ...]
    rank: int
    world_size: int
    num_crops: int
    eval_crop: float
    epoch_clips: EpochClips

    def __post_init__(self) -> None:
        for name in ("batch_size", "image_size", "num_crops"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "it must be at least 1", setting=name)
        if not 0 <= self.rank < self.world_size:
            raise SettingError(
                f"rank is {self.rank} of {self.world_size}", "it must be from 0 to world_size - 1", setting="rank"
            )
        if self.training and self.num_crops > 1:
            raise SettingError(
                f"num_crops is {self.num_crops} in training", "training draws one crop of a clip", setting="num_crops"
            )
        if self.epoch_clips != "all":
            if not isinstance(self.epoch_clips, int) or self.epoch_clips < 1:
                raise SettingError(
                    f"epoch_clips is {self.epoch_clips!r}", "give a whole number from 1, or all", setting="epoch_clips"
                )
            if not self.training:
                raise SettingError(
                    f"epoch_clips is {self.epoch_clips} in an evaluation",
                    "choose the clips of an evaluation with `spread_clips`",
                    setting="epoch_clips",
                )
        if self.crop not in CROP_KINDS:
            raise SettingError(f"crop is {self.crop!r}", f"choose from {', '.join(CROP_KINDS)}", setting="crop")
        if not 0 < self.eval_crop <= 1:
            raise SettingError(
                f"eval_crop is {self.eval_crop}", "give a share of the short side above 0, up to 1", setting="eval_crop"
            )
        is_falling = all(one > other for one, other in itertools.pairwise((*self.crop_sides, 0.0)))
        if not self.crop_sides or self.crop_sides[0] > 1 or not is_falling:
            raise SettingError(
                f"crop_sides is {self.crop_sides}",
                "give shares of the short side in falling order, up to 1",
                setting="crop_sides",
            )

    def choose_views(self, height: int, width: int, number: int, epoch: int) -> tuple[View, ...]:
        """Return the views of clip `number`, of frames `height` x `width`, in an epoch; a single one in training."""
        if not self.training:
            return tuple(
                square_view(height, width, crop, self.num_crops, self.eval_crop) for crop in range(self.num_crops)
            )
        generator = np.random.default_rng([self.seed, epoch, number])
        if self.crop == "multi-scale":
            return (multi_scale_view(height, width, generator, flip=self.flip, sides=self.crop_sides),)
        return (random_view(height, width, generator, flip=self.flip, scale=self.crop_scale),)


class ClipLoader:
    """Batches of one subset, epoch after epoch: a BatchSource that can resume at the exact next batch.

    The order depends on (seed, epoch), the augmentation on (seed, epoch, clip); the number of workers changes neither.
    A pass begins at the first batch of the epoch, except right after `load_state_dict`. A complete pass moves on to
    the next epoch; an unfinished one does not, then call `set_epoch`.
    """

    def __init__(self, dataset: ShardDataset, settings: LoaderSettings, num_workers: int) -> None:
        self.dataset = dataset
        self.settings = settings
        self._order = BatchOrder([row.video for row in dataset.clips], settings)
        self._epoch = self._next_batch = 0
        self._is_resuming = False
        # a group has a batch for each crop, so with several crops one group ahead is enough
        num_ahead = 2 if settings.num_crops == 1 else 1
        # two more groups: the one in use and the one before it
        num_slots = (num_ahead + 2) * settings.num_crops
        num_workers, memory = _choose_memory(num_workers, num_slots, self._warn)
        self._loader: DataLoader[Any] = DataLoader(
            _BatchGroups(dataset, settings, memory),
            batch_sampler=self._order,
            num_workers=num_workers,
            collate_fn=_unchanged,
            worker_init_fn=_init_worker,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            prefetch_factor=num_ahead if num_workers else None,
            # a forked worker would inherit the threads of the accelerator and of the decoder
            multiprocessing_context="spawn" if num_workers > 0 else None,
        )

    def __len__(self) -> int:
        return self._order.num_groups * self.settings.num_crops

    @property
    def is_training(self) -> bool:
        """Whether clips are shuffled and augmented, and those that fill no batch are left out."""
        return self.settings.training

    @property
    def num_views(self) -> int:
        """Rows that count in a complete evaluation, over all ranks: each crop of each clip."""
        return len(self.dataset) * self.settings.num_crops

    def __iter__(self) -> Iterator[Batch]:
        # after an unfinished pass, such as `next(iter(loader))`, the next one begins at the first clips
        if not self._is_resuming:
            self._next_batch = 0
        self._is_resuming = False
        self._order.epoch = self._epoch
        self._order.next_group, num_seen = divmod(self._next_batch, self.settings.num_crops)
        for group in self._groups():
            for batch in group[num_seen:]:
                self._next_batch += 1
                yield batch
            num_seen = 0
        self.set_epoch(self._epoch + 1)

    def _groups(self) -> Iterator[list[Batch]]:
        try:
            yield from self._loader
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise RespikeError(f"the loader cannot open more files: {error.strerror}", _HOW_TO_OPEN_MORE) from error

    def _warn(self, message: str) -> None:
        # once, and not once per process of a distributed training
        if self.settings.rank == 0:
            warnings.warn(message, RespikeWarning, stacklevel=2)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass, which begins at its first batch."""
        self._epoch, self._next_batch, self._is_resuming = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Return the position in the current pass, or in the last one: epoch, and batches yielded so far."""
        return {"epoch": self._epoch, "next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass continue from `state_dict()` with the batch that would have come next."""
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
    """Make a loader: batches of `batch_size` clips for each rank, pictures of `image_size` x `image_size` pixels.

    Training: clips are shuffled, cropped and, if `flip`, mirrored with chance ½. `crop` is `resized` for random resized
    crops of `crop_scale` of the area, or `multi-scale` for crops with sides of `crop_sides` of the short side (see
    `multi_scale_view`). An epoch shows every stored clip once, or at most `epoch_clips` clips of each video, drawn
    again in each epoch. Clips that do not fill a batch on every rank are left out, other clips in each epoch.

    Evaluation: clips come in order, each once over all ranks, as the centre square with a side of `eval_crop` of the
    short side. Rows that only fill up the last batch have the mask False. With `num_crops` above 1 each batch comes so
    many times, decoded once; `crop` of the batch is the number of the square along the longer side (see
    `square_view`).

    Every rank gets the same number of batches. Raises SettingError on values out of range, and where the training data
    has fewer clips than one step takes.
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
    num_clips = count_epoch_clips([row.video for row in dataset.clips], epoch_clips)
    if training and num_clips < batch_size * world_size:
        raise SettingError(
            f"the data has {counted(num_clips, 'clip')} to train on, one step takes {batch_size * world_size}",
            f"choose a batch size of at most {num_clips // world_size}",
            setting="batch_size",
        )
    return ClipLoader(dataset, settings, num_workers)


def make_batch(clips: Sequence[EventClip], image_size: int, eval_crop: float = 1.0) -> Batch:
    """Make a batch of clips as `make_loader` does for an evaluation: the centre square, resized to `image_size`.

    All clips must have the same shape and colour. `eval_crop` is the side of the square as a share of the short side.
    """
    height, width = clips[0].keys.shape[-2:]
    rows = ((clip, [centre_view(height, width, eval_crop)], True) for clip in clips)
    [(memory, facts)] = _assemble(rows, len(clips), image_size, allocate_private)
    return facts.to_batch(memory.content)


@dataclass(frozen=True, kw_only=True)
class Views:
    """Views of a video in an evaluation: number of clips (None: all stored), and square crops of each clip."""

    clips: int | None = None
    crops: int = 1

    def __post_init__(self) -> None:
        if self.clips is not None and self.clips < 1:
            raise SettingError(f"views have {self.clips} clips of a video", "take at least 1", setting="views")
        if self.crops not in CROPS:
            raise SettingError(
                f"views have {self.crops} crops of a clip", f"choose from {', '.join(map(str, CROPS))}", setting="views"
            )

    def __str__(self) -> str:
        return f"{'all' if self.clips is None else self.clips}x{self.crops}"


def parse_views(text: str) -> Views:
    """Parse `CLIPS` or `CLIPSxCROPS`, such as `1`, `10x3` or `allx3`. Raises SettingError on another form."""
    match = _VIEWS_FORM.fullmatch(text.strip())
    if match is None:
        raise SettingError(
            f"views are {text!r}", "write CLIPS or CLIPSxCROPS, such as 1, 3, 10x3 or allx3", setting="views"
        )
    clips = None if match[1].lower() == "all" else int(match[1])
    return Views(clips=clips, crops=int(match[2] or 1))


def spread_clips(dataset: ShardDataset, num_clips: int | None) -> ShardDataset:
    """Return the part with at most `num_clips` clips of each video; None takes all clips.

    Of n stored clips it takes those in the middle of `num_clips` equal parts, with the numbers
    `⌊(2i + 1) · n / (2 · num_clips)⌋` for i from 0. A single clip is the middle one.
    """
    if num_clips is None:
        return dataset
    of_video: dict[str, list[int]] = {}
    for number, row in enumerate(dataset.clips):
        of_video.setdefault(row.video, []).append(number)
    chosen = []
    for numbers in of_video.values():
        count = min(num_clips, len(numbers))
        chosen += [numbers[(2 * part + 1) * len(numbers) // (2 * count)] for part in range(count)]
    return dataset.select(sorted(chosen))


def count_epoch_clips(videos: Sequence[str], epoch_clips: EpochClips) -> int:
    """Return how many clips an epoch of training shows; `videos` names the video of each stored clip."""
    if epoch_clips == "all":
        return len(videos)
    return sum(min(count, epoch_clips) for count in Counter(videos).values())


def _choose_memory(num_workers: int, num_slots: int, warn: Callable[[str], None]) -> tuple[int, BatchMemory | None]:
    """Return how many workers the system allows, and their shared memory; None if batches must come through pipes."""
    if not num_workers:
        return 0, None
    try:
        # as the queues of a worker have one; it is kept in /dev/shm
        get_context("spawn").Lock()
    except OSError as error:
        warn(
            f"clips are loaded without workers, as /dev/shm cannot be used ({error.strerror}); "
            "make it writable, or ask for 0 workers"
        )
        return 0, None
    num_free = raise_file_limit() - count_open_files()
    # a training has a second loader, for validation
    num_possible = (num_free - _NUM_OTHER_FILES) // (2 * _NUM_WORKER_FILES)
    if num_possible < num_workers:
        num_workers = max(0, num_possible)
        warn(f"clips are loaded with {counted(num_workers, 'worker')}: few files may be open; {_HOW_TO_OPEN_MORE}")
        return num_workers, None
    if num_free - _NUM_OTHER_FILES < 2 * num_workers * (_NUM_WORKER_FILES + num_slots):
        warn(f"batches take longer to arrive, as few files may be open; {_HOW_TO_OPEN_MORE}")
        return num_workers, None
    try:
        return num_workers, BatchMemory(num_workers, num_slots, warn)
    except (RuntimeError, OSError) as error:
        warn(f"batches take longer to arrive, as memory cannot be shared ({error}); {HOW_TO_SHARE}")
        return num_workers, None


class BatchOrder(Sampler[list[_Row]]):
    """The rows of each group of batches in a pass, from `next_group` to `num_groups`, which is equal on all ranks.

    A group is decoded together: it has a batch for each crop of the same clips. `videos` names the video of each clip,
    in the order of the clips' numbers. The clips of a training epoch are drawn by (seed, epoch): all of them, or at
    most `epoch_clips` of each video.
    """

    def __init__(self, videos: Sequence[str], settings: LoaderSettings) -> None:
        self._num_clips, self._settings = len(videos), settings
        # the video of each clip as a number; only where clips are drawn, since it takes 0.2 s for a million clips
        self._videos: NDArray[np.int64] | None = None
        if settings.epoch_clips != "all":
            numbers = {video: number for number, video in enumerate(dict.fromkeys(videos))}
            self._videos = np.fromiter((numbers[video] for video in videos), np.int64, len(videos))
        self.epoch = 0
        self.next_group = 0
        step = settings.batch_size * settings.world_size
        num_clips = count_epoch_clips(videos, settings.epoch_clips)
        self.num_groups = num_clips // step if settings.training else -(-num_clips // step)

    def __iter__(self) -> Iterator[list[_Row]]:
        settings, epoch = self._settings, self.epoch
        step = settings.batch_size * settings.world_size
        # another order in each epoch, so other clips are left out of the last step
        order = self._shuffle() if settings.training else None
        for group in range(self.next_group, self.num_groups):
            first = group * step + settings.rank * settings.batch_size
            numbers = range(first, first + settings.batch_size)
            if order is not None:
                yield [(int(number), epoch, True) for number in order[numbers.start : numbers.stop]]
            else:
                # clip 0 fills up the last batch and does not count
                yield [(number, 0, True) if number < self._num_clips else (0, 0, False) for number in numbers]

    def __len__(self) -> int:
        return self.num_groups - self.next_group

    def _shuffle(self) -> NDArray[np.int64]:
        """Return the numbers of the clips of the epoch, in random order."""
        generator = np.random.default_rng([self._settings.seed, self.epoch])
        order = generator.permutation(self._num_clips)
        max_clips = self._settings.epoch_clips
        if max_clips == "all" or self._videos is None:
            return order
        # a stable sort by video leaves the clips of each video shuffled: the first of them are a random draw
        order = order[np.argsort(self._videos[order], kind="stable")]
        videos = self._videos[order]
        drawn = order[np.arange(len(order)) - np.searchsorted(videos, videos) < max_clips]
        return generator.permutation(drawn)


class _BatchGroups(Dataset[list[Any]]):
    """Groups of batches by their rows: as Batch, or in a worker as BatchBytes, in `memory` if there is one."""

    def __init__(self, dataset: ShardDataset, settings: LoaderSettings, memory: BatchMemory | None) -> None:
        self._dataset, self._settings, self._memory = dataset, settings, memory

    def __getitems__(self, rows: Sequence[_Row]) -> list[Batch] | list[BatchBytes]:
        """Make the batches of these rows. The loader of torch calls this method with all rows of a group."""
        allocate = self._memory.allocate if self._memory else allocate_private
        batches = _assemble(map(self._read, rows), len(rows), self._settings.image_size, allocate)
        if get_worker_info() is None:
            return [facts.to_batch(memory.content) for memory, facts in batches]
        for memory, facts in batches:
            memory.finish(facts.to_batch)
        return [memory for memory, _ in batches]

    def _read(self, row: _Row) -> tuple[EventClip, tuple[View, ...], bool]:
        number, epoch, counts = row
        clip = self._dataset[number]
        height, width = clip.keys.shape[-2:]
        return clip, self._settings.choose_views(height, width, number, epoch), counts


def _assemble(
    clips: Iterable[tuple[EventClip, Sequence[View], bool]],
    num_rows: int,
    image_size: int,
    allocate: Callable[[int, int], list[BatchBytes]],
) -> list[tuple[BatchBytes, BatchFacts]]:
    """Augment clips directly into the rows of batches, one batch for each view; a copy takes a third longer."""
    infos, mask = [], []
    for row, (clip, views, counts) in enumerate(clips):
        if row == 0:
            color, (num_groups, num_residuals) = clip.color, clip.planes[0].shape[:2]
            num_bytes = num_rows * num_groups * (1 + 2 * num_residuals) * 3 * image_size**2
            memories = allocate(num_bytes, len(views))
            pixels = [
                tuple(
                    part.numpy()
                    for part in split_pixels(memory.content, num_rows, num_groups, num_residuals, image_size)
                )
                for memory in memories
            ]
        for view, (keys, residuals) in zip(views, pixels, strict=True):
            write_view(clip, view, keys[row], residuals[row])
        infos.append(clip.info)
        mask.append(counts)
    return [
        (
            memory,
            BatchFacts(
                num_groups=num_groups,
                num_residuals=num_residuals,
                image_size=image_size,
                color=color,
                labels=tuple(info.label for info in infos),
                video_ids=tuple(info.video for info in infos),
                clip_indices=tuple(info.clip_index for info in infos),
                mask=tuple(mask),
                crop=crop,
            ),
        )
        for crop, memory in enumerate(memories)
    ]


def _init_worker(number: int) -> None:
    keep_memory()
    # a terminal sends these to the workers as well, and the training still needs batches until it has saved
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)


def _unchanged(group: Any) -> Any:
    # torch would collate a list of samples; here the batches are complete
    return group
