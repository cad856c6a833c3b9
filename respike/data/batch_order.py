"""Batch order: which clips make which batch on a rank; known before a shard is opened."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from respike.data.loader_settings import EpochClips, LoaderSettings

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
