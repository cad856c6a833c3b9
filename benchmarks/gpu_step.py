"""A training step to be measured: a network, clips that stay on the device, one update by SGD with momentum."""

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
    """What is trained, on what: clips of `frames` frames, a key frame every `stride`, of `size` pixels a side."""

    model: str
    size: int
    batch: int
    frames: int
    stride: int
    device: str

    def make_clips(self, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Random key frames and residuals, as the loader gives them."""
        shape = batch or self.batch, self.frames // self.stride
        image = 3, self.size, self.size
        keys = torch.randint(0, 256, (*shape, *image), dtype=torch.uint8, device=self.device)
        residuals = torch.randint(-30, 31, (*shape, self.stride - 1, *image), dtype=torch.int16, device=self.device)
        return keys, residuals


class TrainingStep:
    """One update of a network, as `respike train --optimizer momentum` makes it; call it to make one.

    `network` is what is called on the clips: `model`, or something around it.
    """

    def __init__(self, work: Work, precision: str = "bf16") -> None:
        torch.manual_seed(0)
        self.work, self.precision = work, precision
        self.model = create_model(work.model, num_classes=NUM_CLASSES).to(work.device).train()
        wake(self.model)
        self.network: nn.Module = self.model
        self.clips = work.make_clips()
        self.labels = torch.randint(0, NUM_CLASSES, (work.batch,), device=work.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
        # a captured graph cannot look weights up that were cast before
        self.keeps_casts = True

    def __call__(self) -> None:
        """Make one update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.go_back()
        self.optimizer.step()

    def go_back(self) -> None:
        """Forward and backward alone."""
        with mixed(self.work.device, self.precision, keeps_casts=self.keeps_casts):
            loss = F.cross_entropy(self.network(*self.clips, "ycc"), self.labels)
        loss.backward()


def wake(model: nn.Module) -> None:
    """Give the fusions weights: new ones change nothing, and their gradient would stop there."""
    for fusion in getattr(model, "fusions", ()):
        if not isinstance(fusion, nn.Identity):
            nn.init.normal_(fusion.project_out.weight, std=0.05)


def mixed(device: str, precision: str, *, keeps_casts: bool = True) -> AbstractContextManager[Any]:
    """Autocast to `precision`."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device, dtype, cache_enabled=keeps_casts) if dtype else nullcontext()


@contextmanager
def single_precision(precision: str) -> Iterator[None]:
    """Let products of single precision be rounded to TF32 on the way in, or, but for `tf32`, not."""
    global _allows_tf32
    before = _allows_tf32
    try:
        _allow_tf32(precision == "tf32")
        yield
    finally:
        _allow_tf32(before)


_allows_tf32 = False


def _allow_tf32(allowed: bool) -> None:
    # torch refuses to read these flags once they were set in its newer way, so they are only written, all in one way
    global _allows_tf32
    _allows_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def measure(run: Callable[[], None], device: str, rounds: int, num_warm: int = 2) -> dict[str, float]:
    """Seconds of a call, the median of `rounds`, and of the first; the most gigabytes that torch has held so far."""
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
    """Wait for an accelerator."""
    if device == "cuda":
        torch.cuda.synchronize()
