"""Batch source: what training and scoring draw batches from, seen from either side of the wall."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from respike.sample import Batch


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
