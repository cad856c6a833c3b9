"""Shared batches: loader workers pass batches to the main process in shared memory that is used again."""

import itertools
import math
import os
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from respike.types import Batch, Color


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """Everything of a batch except its pixels."""

    num_groups: int
    num_residuals: int
    image_size: int
    color: Color
    labels: tuple[int, ...]
    video_ids: tuple[str, ...]
    clip_indices: tuple[int, ...]
    mask: tuple[bool, ...]
    crop: int

    def to_batch(self, pixels: torch.Tensor) -> Batch:
        """Return the batch whose pixels are in `pixels`, uint8 `[num_bytes]`, without copying them."""
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
    pixels: torch.Tensor, num_rows: int, num_groups: int, num_residuals: int, image_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return views (keys, residuals) of the bytes of a batch, with the shapes and types of a Batch."""
    # residuals come first: their numbers take two bytes and must be aligned
    shape = (num_rows, num_groups, num_residuals, 3, image_size, image_size)
    num_bytes = 2 * math.prod(shape)
    keys = pixels[num_bytes:].view(num_rows, num_groups, 3, image_size, image_size)
    return keys, pixels[:num_bytes].view(torch.int16).view(shape)


Build = Callable[[torch.Tensor], Any]
"""Makes a batch from its bytes, uint8 `[num_bytes]`; must be picklable."""

HOW_TO_SHARE = "give /dev/shm more room (docker: `--shm-size 8g`), or use fewer workers"

_numbers = itertools.count()
# in the main process: what a worker sends refers to a memory by its number
_memories: "weakref.WeakValueDictionary[int, BatchMemory]" = weakref.WeakValueDictionary()


class BatchMemory:
    """Shared memory for the batches of a loader's workers: up to `num_slots` batches for each worker.

    Further batches are sent through a pipe, which takes longer, and so are all batches for which the system has no
    more shared memory. The main process creates it and passes it to its workers; `warn` gets one line there when
    shared memory runs out.
    """

    def __init__(self, num_workers: int, num_slots: int, warn: Callable[[str], None] = warnings.warn) -> None:
        self._warn: Callable[[str], None] | None = warn
        self._number = next(_numbers)
        self._main_process = os.getpid()
        # uint8 [num_workers, num_slots]: a worker sets 1 when it sends a slot, the main process 0 when it is done
        self._in_use = _share(torch.zeros((num_workers, num_slots), dtype=torch.uint8))
        # (worker, slot) → bytes: those of all workers in the main process, a worker's own in the worker
        self._slots: dict[tuple[int, int], torch.Tensor] = {}
        # in a worker: the slots whose bytes the main process has already
        self._sent_slots: set[int] = set()
        _memories[self._number] = self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slots": {}, "_warn": None}

    def allocate(self, num_bytes: int, num_batches: int) -> "list[BatchBytes]":
        """In a worker, return memory for batches that are sent together, `num_bytes` each."""
        info = get_worker_info()
        assert info is not None, "called outside of a worker"
        free_slots = [slot for slot, in_use in enumerate(self._in_use[info.id].tolist()) if not in_use]
        batches: list[BatchBytes] = []
        for slot in free_slots[:num_batches]:
            try:
                content = self._slot_bytes(info.id, slot, num_bytes)
            except (RuntimeError, OSError) as error:  # /dev/shm is full, or too many files are open
                private = allocate_private(num_bytes, num_batches - len(batches))
                for each in private:
                    each.problem = (self._number, str(error))
                return batches + private
            batches.append(BatchBytes(content, self, info.id, slot))
        return batches + allocate_private(num_bytes, num_batches - len(batches))

    def _slot_bytes(self, worker: int, slot: int, num_bytes: int) -> torch.Tensor:
        content = self._slots.get((worker, slot))
        if content is None or len(content) != num_bytes:
            content = self._slots[worker, slot] = _share(torch.empty(num_bytes, dtype=torch.uint8))
            self._sent_slots.discard(slot)
        return content

    def send(self, worker: int, slot: int) -> tuple[int, int, int, torch.Tensor | None]:
        """In a worker, mark a slot as in use; return the arguments of `_receive`, with the bytes of a new slot."""
        content = None if slot in self._sent_slots else self._slots[worker, slot]
        self._sent_slots.add(slot)
        self._in_use[worker, slot] = 1
        return self._number, worker, slot, content

    def receive(self, worker: int, slot: int, content: torch.Tensor | None) -> torch.Tensor:
        """In the main process, return the bytes of a slot, which is free again once no tensor refers to them."""
        if content is not None:
            self._slots[worker, slot] = content
        view = self._slots[worker, slot].numpy()[:]
        # only the storage of the new tensor holds this view
        weakref.finalize(view, self._free, worker, slot).atexit = False
        return torch.from_numpy(view)

    def report(self, problem: str) -> None:
        """In the main process, warn once that shared memory ran out."""
        if self._warn is not None:
            self._warn(f"batches take longer to arrive, as shared memory ran out ({problem}); {HOW_TO_SHARE}")
            self._warn = None

    def _free(self, worker: int, slot: int) -> None:
        # a fork of the main process drops its copy of a batch while the main process still uses it
        if os.getpid() == self._main_process:
            self._in_use[worker, slot] = 0


class BatchBytes:
    """The bytes of a batch to be made, uint8 `[num_bytes]`, in `content`.

    Pickled after `finish`, it arrives in the main process as the batch.
    """

    def __init__(
        self, content: torch.Tensor, memory: BatchMemory | None = None, worker: int = 0, slot: int = 0
    ) -> None:
        self.content = content
        self._memory, self._worker, self._slot = memory, worker, slot
        self._reduced: tuple[Any, ...] = ()
        # number of the memory that had no place for this batch, and why
        self.problem: tuple[int, str] | None = None

    def finish(self, build: Build) -> None:
        """Set what makes the batch from these bytes. The worker must not write to them any more."""
        if self._memory is None:
            # an array and not a tensor, as torch sends tensors in shared memory
            self._reduced = _build, (build, self.content.numpy(), self.problem)
        else:
            # now and not in __reduce__: another thread pickles it while this one makes the next batch
            self._reduced = _receive, (build, *self._memory.send(self._worker, self._slot))

    def __reduce__(self) -> tuple[Any, ...]:
        assert self._reduced, "sent before it was finished"
        return self._reduced


def allocate_private(num_bytes: int, num_batches: int) -> list[BatchBytes]:
    """Return memory for batches, `num_bytes` each, that is used once; none where `num_batches` is below 1."""
    # numpy asks the kernel for large pages, which pays for batches above 32 MB
    return [BatchBytes(torch.from_numpy(np.empty(num_bytes, np.uint8))) for _ in range(num_batches)]


def _share(tensor: torch.Tensor) -> torch.Tensor:
    shared: torch.Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def _build(build: Build, content: NDArray[np.uint8], problem: tuple[int, str] | None) -> Any:
    if problem is not None and (memory := _memories.get(problem[0])) is not None:
        memory.report(problem[1])
    return build(torch.from_numpy(content))


def _receive(build: Build, number: int, worker: int, slot: int, content: torch.Tensor | None) -> Any:
    return build(_memories[number].receive(worker, slot, content))
