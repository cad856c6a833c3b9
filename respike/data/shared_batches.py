"""Shared batches: batches that workers hand over in shared memory."""

import itertools
import math
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from respike.types import Batch, Color


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """All of a batch but its pixels."""

    num_groups: int
    num_residuals: int
    image_size: int
    color: Color
    labels: tuple[int, ...]
    video_ids: tuple[str, ...]
    clip_indices: tuple[int, ...]
    mask: tuple[bool, ...]
    crop: int

    def batch(self, pixels: torch.Tensor) -> Batch:
        """The batch whose pixels are these bytes."""
        keys, residuals = split_pixels(pixels, len(self.labels), self.num_groups, self.num_residuals, self.image_size)
        return Batch(
            keys=keys,
            residuals=residuals,
            color=self.color,
            labels=torch.tensor(self.labels, dtype=torch.int64),
            video_ids=self.video_ids,
            clip_indices=torch.tensor(self.clip_indices, dtype=torch.int64),
            mask=torch.tensor(self.mask, dtype=torch.bool),
            crop=self.crop,
        )


def split_pixels(
    pixels: torch.Tensor, num_rows: int, num_groups: int, num_residuals: int, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and residuals of a batch in its bytes; residuals first, whose numbers take two."""
    shape = (num_rows, num_groups, num_residuals, 3, size, size)
    num_bytes = 2 * math.prod(shape)
    keys = pixels[num_bytes:].view(num_rows, num_groups, 3, size, size)
    return keys, pixels[:num_bytes].view(torch.int16).view(shape)


Build = Callable[[torch.Tensor], Any]
"""What makes a batch of its bytes, uint8 `[num_bytes]`; it pickles."""

_numbers = itertools.count()
# of the reading process: what comes from a worker finds the memory that it stands in by number
_known: "weakref.WeakValueDictionary[int, BatchMemory]" = weakref.WeakValueDictionary()


class BatchMemory:
    """Memory for batches of a loader's workers, of up to `num_places` for each; batches beyond go as torch sends them.

    The reading process makes it, and workers are started with it.
    """

    def __init__(self, num_workers: int, num_places: int) -> None:
        self._number = next(_numbers)
        self._reader = os.getpid()
        # 1 from when a worker leaves a place to the reader until the reader is done with it; each undoes the other's
        self._in_use = _share(torch.zeros((num_workers, num_places), dtype=torch.uint8))
        # (worker, place) → its bytes: all of them in the reader, its own in a worker
        self._places: dict[tuple[int, int], torch.Tensor] = {}
        # of a worker: what the reader has as well
        self._known_places: set[int] = set()
        _known[self._number] = self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_places": {}}

    def make(self, num_bytes: int, num_batches: int) -> "list[BatchBytes]":
        """In a worker, memory for batches that are handed over together, `num_bytes` each."""
        info = get_worker_info()
        assert info is not None, "called outside of a worker"
        free = [place for place, in_use in enumerate(self._in_use[info.id].tolist()) if not in_use]
        made = [BatchBytes(self._bytes_at(info.id, place, num_bytes), self, info.id, place) for place in free]
        return (made + make_anywhere(num_bytes, num_batches - len(made)))[:num_batches]

    def _bytes_at(self, worker: int, place: int, num_bytes: int) -> torch.Tensor:
        content = self._places.get((worker, place))
        if content is None or len(content) != num_bytes:
            content = self._places[worker, place] = _share(torch.empty(num_bytes, dtype=torch.uint8))
            self._known_places.discard(place)
        return content

    def hand_over(self, worker: int, place: int) -> tuple[int, int, int, torch.Tensor | None]:
        """In a worker, leave a place to the reader; return what tells the reader which, and its bytes where new."""
        content = None if place in self._known_places else self._places[worker, place]
        self._known_places.add(place)
        self._in_use[worker, place] = 1
        return self._number, worker, place, content

    def receive(self, worker: int, place: int, content: torch.Tensor | None) -> torch.Tensor:
        """In the reader, the bytes at a place, which is free again when no tensor uses them any more."""
        if content is not None:
            self._places[worker, place] = content
        view = self._places[worker, place].numpy()[:]
        # this very view is held by the new tensor's storage and nothing else
        weakref.finalize(view, self._free, worker, place).atexit = False
        return torch.from_numpy(view)

    def _free(self, worker: int, place: int) -> None:
        # a process forked from the reader drops its copy of a batch, while the reader goes on with the batch
        if os.getpid() == self._reader:
            self._in_use[worker, place] = 0


class BatchBytes:
    """The bytes of a batch to be, uint8 `[num_bytes]`. Finished and sent, it arrives as the batch."""

    def __init__(
        self, content: torch.Tensor, memory: BatchMemory | None = None, worker: int = 0, place: int = 0
    ) -> None:
        self.content = content
        self._memory, self._worker, self._place = memory, worker, place
        self._arrival: tuple[Any, ...] = ()

    def finish(self, build: Build) -> None:
        """Say what makes the batch of these bytes, which are no longer the worker's."""
        if self._memory is None:
            self._arrival = _build, (build, self.content)
        else:
            # now, for it is pickled by another thread while this one makes the next batch
            self._arrival = _receive, (build, *self._memory.hand_over(self._worker, self._place))

    def __reduce__(self) -> tuple[Any, ...]:
        assert self._arrival, "sent before it was finished"
        return self._arrival


def make_anywhere(num_bytes: int, num_batches: int) -> list[BatchBytes]:
    """Memory for batches, `num_bytes` each, that is not used again; none where `num_batches` is below 1."""
    # by numpy, which asks the kernel for large pages: a batch above 32 MB is new memory each time
    return [BatchBytes(torch.from_numpy(np.empty(num_bytes, np.uint8))) for _ in range(num_batches)]


def _share(tensor: torch.Tensor) -> torch.Tensor:
    shared: torch.Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def _build(build: Build, content: torch.Tensor) -> Any:
    return build(content)


def _receive(build: Build, number: int, worker: int, place: int, content: torch.Tensor | None) -> Any:
    return build(_known[number].receive(worker, place, content))
