"""What a layout is: a function from what lies on disk to the videos that a dataset lists."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from respike.data.sampling import Sampling
from respike.registry import Registry
from respike.sample import VideoListing


@dataclass(frozen=True, kw_only=True)
class ListingRequest:
    """Where to look and what for: `split` None is the first, `list_path` is for `folder`, `seed` for its own split."""

    root: Path
    split: int | None = None
    seed: int = 0
    list_path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One dataset: how to list it, how its clips are usually sampled, which official splits it has (none: empty)."""

    name: str
    list_videos: Callable[[ListingRequest], VideoListing]
    default_sampling: Sampling
    splits: tuple[int, ...] = ()


LAYOUTS: Registry[Layout] = Registry("data set")
