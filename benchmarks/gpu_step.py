"""A training step to measure: a network, clips that stay on the device, and one update with SGD with momentum."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from respike.zoo import create_model
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 101
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None, "tf32": None}


@dataclass(frozen=True, kw_only=True)
class Work:
    """Network, device and input: `batch` clips of `frames` frames of `size` x `size` pixels, in groups of `stride`."""

    model: str
    size: int
    batch: int
    frames: int
    stride: int
    device: str

    def make_clips(self, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Return random key frames and residuals, like those of the loader."""
        shape = batch or self.batch, self.frames // self.stride
        image = 3, self.size, self.size
        keys = torch.randint(0, 256, (*shape, *image), dtype=torch.uint8, device=self.device)
        residuals = torch.randint(-30, 31, (*shape, self.stride - 1, *image), dtype=torch.int16, device=self.device)
        return keys, residuals


class TrainingStep:
    """One update of a network, as in `respike train --optimizer momentum`. Call it to compute one update.

    `network` is called with the clips: `model`, or a module that contains it.
    """

    def __init__(self, work: Work, precision: str = "bf16") -> None:
        torch.manual_seed(0)
        self.work, self.precision = work, precision
        self.model = create_model(work.model, num_classes=NUM_CLASSES).to(work.device).train()
        init_fusions(self.model)
        self.network: nn.Module = self.model
        self.clips = work.make_clips()
        self.labels = torch.randint(0, NUM_CLASSES, (work.batch,), device=work.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
        # the cache of autocast does not work in a captured graph
        self.autocast_cache = True

    def __call__(self) -> None:
        """Compute one update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.forward_backward()
        self.optimizer.step()

    def forward_backward(self) -> None:
        """Compute forward and backward without the update."""
        with mixed(self.work.device, self.precision, autocast_cache=self.autocast_cache):
            loss = F.cross_entropy(self.network(*self.clips, "ycc"), self.labels)
        loss.backward()


def init_fusions(model: nn.Module) -> None:
    """Give the fusions random weights. They start at zero, where no gradient passes through them."""
    for fusion in getattr(model, "fusions", ()):
        if not isinstance(fusion, nn.Identity):
            nn.init.normal_(fusion.project_out.weight, std=0.05)


def mixed(device: str, precision: str, *, autocast_cache: bool = True) -> AbstractContextManager[Any]:
    """Return the context for `precision`: autocast, or nothing in single precision."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device, dtype, cache_enabled=autocast_cache) if dtype else nullcontext()


@contextmanager
def single_precision(precision: str) -> Iterator[None]:
    """Allow TF32 in single-precision products for `tf32`, and forbid it for all others."""
    global _allows_tf32
    before = _allows_tf32
    try:
        _allow_tf32(precision == "tf32")
        yield
    finally:
        _allow_tf32(before)


_allows_tf32 = False


def _allow_tf32(allowed: bool) -> None:
    # reading these flags fails after the newer interface set them, so they are only written, always with this interface
    global _allows_tf32
    _allows_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def measure(run: Callable[[], None], device: str, rounds: int, num_warm: int = 2) -> dict[str, float]:
    """Return the median seconds of a call over `rounds`, the seconds of the first call, and the peak memory in GB."""
    first = _time(run, device)
    for _ in range(num_warm - 1):
        run()
    seconds = [_time(run, device) for _ in range(rounds)]
    figures = {"seconds": statistics.median(seconds), "first_seconds": first}
    figures["spread"] = (max(seconds) - min(seconds)) / figures["seconds"]
    if device == "cuda":
        figures["gb"] = torch.cuda.max_memory_allocated() / 1e9
    return {name: round(value, 6) for name, value in figures.items()}


def _time(run: Callable[[], None], device: str) -> float:
    finish(device)
    started = time.perf_counter()
    run()
    finish(device)
    return time.perf_counter() - started


def finish(device: str) -> None:
    """Wait until the accelerator is done."""
    if device == "cuda":
        torch.cuda.synchronize()
