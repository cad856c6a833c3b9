"""Batch order: which clips make which batch on a rank; known before a shard is opened."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from respike.data.loader_settings import LoaderSettings

# one row of a batch: which clip, in which epoch it is augmented, whether it counts
Row = tuple[int, int, bool]


class BatchOrder(Sampler[list[Row]]):
    """The rows of each batch of a pass, from `next_group` on; of `num_groups`, the same on every rank.

    A group is what is decoded together: the batches of all crops of the same clips.
    """

    def __init__(self, num_clips: int, settings: LoaderSettings) -> None:
        self._num_clips, self._settings = num_clips, settings
        self.epoch = 0
        self.next_group = 0
        step = settings.batch_size * settings.world_size
        self.num_groups = num_clips // step if settings.training else -(-num_clips // step)

    def __iter__(self) -> Iterator[list[Row]]:
        settings, epoch = self._settings, self.epoch
        step = settings.batch_size * settings.world_size
        # a fresh permutation each epoch, so the remainder that is cut off is another one each time
        order = (
            np.random.default_rng([settings.seed, epoch]).permutation(self._num_clips) if settings.training else None
        )
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
