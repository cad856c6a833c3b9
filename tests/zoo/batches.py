"""Small batches in memory: clips of a few classes, told apart by the brightness of a quarter of their key frames."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from respike.types import Batch, DataSpec

SETTINGS = {"stride": 4, "clip_length": 8, "frame_stride": 1, "threshold": 8, "color": "ycc", "short_side": 32}


def make_data_spec(*, num_classes: int = 3, **changes: object) -> DataSpec:
    classes = tuple(f"class-{label}" for label in range(num_classes))
    facts = {"dataset": "bits", "split": 1, "evaluation_subset": "test", "classes": classes, "settings": SETTINGS}
    return DataSpec(**(facts | {"fingerprint": "f" * 64} | changes))


def make_batch(
    labels: list[int], *, videos: list[str] | None = None, mask: list[bool] | None = None, size: int = 32
) -> Batch:
    """A batch whose clip i shows its label: quarter `label` of each key frame is bright."""
    generator = torch.Generator().manual_seed(sum(labels) + len(labels))
    num = len(labels)
    keys = torch.randint(0, 60, (num, 2, 3, size, size), generator=generator, dtype=torch.uint8)
    half = size // 2
    for row, label in enumerate(labels):
        top, left = divmod(label % 4, 2)
        keys[row, :, :, top * half : (top + 1) * half, left * half : (left + 1) * half] += 180
    residuals = torch.randint(-2, 3, (num, 2, 3, 3, size, size), generator=generator).to(torch.int16) * 8
    return Batch(
        keys=keys,
        residuals=residuals,
        color="ycc",
        labels=torch.tensor(labels),
        video_ids=tuple(videos or [f"video-{row}" for row in range(num)]),
        clip_indices=torch.arange(num),
        mask=torch.tensor(mask or [True] * num),
    )


@dataclass
class Batches:
    """A BatchSource over a list; it notes which epochs were asked for."""

    batches: list[Batch]
    epochs: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


@dataclass
class Notes:
    """A Progress that keeps what it is told."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    advanced: float = 0
    total: float | None = None
    facts: dict[str, str | float] = field(default_factory=dict)

    def task(self, name: str, *, total: float | None, unit: str) -> "Notes":
        self.total = total
        return self

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, amount: float = 1, **facts: str | float) -> None:
        self.advanced += amount
        self.facts |= facts

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)
