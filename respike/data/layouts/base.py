"""What a layout is: a function from what lies on disk to the videos that a dataset lists."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from respike.data.sampling import Sampling
from respike.errors import SettingError
from respike.registry import Registry
from respike.sample import VideoListing


@dataclass(frozen=True, kw_only=True)
class ListingRequest:
    """Where to look and what for.

    `split` is an official one, None the first; `list_path` is a list for `folder`; `seed`, 0 or more, draws
    `folder`'s own split where none is given. Without `follow_symlinks` no link is followed that leads out of `root`.
    """

    root: Path
    split: int | None = None
    seed: int = 0
    list_path: Path | None = None
    follow_symlinks: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SettingError(f"seed is {self.seed}", "give 0 or more")

    @property
    def fence(self) -> Path | None:
        """The folder that no link may lead out of, None where links may lead anywhere."""
        return None if self.follow_symlinks else self.root

    def official_split(self, dataset: str, splits: tuple[int, ...]) -> int | None:
        """The split to list, of those that `dataset` has. Raises SettingError on another one."""
        if self.split is None:
            return splits[0] if splits else None
        if self.split not in splits:
            allowed = f"choose from {', '.join(map(str, splits))}" if splits else f"{dataset} has no splits"
            raise SettingError(f"split {self.split} of {dataset} does not exist", allowed)
        return self.split


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One dataset: how to list it, how its clips are usually sampled, which official splits it has (none: empty)."""

    name: str
    list_videos: Callable[[ListingRequest], VideoListing]
    default_sampling: Sampling
    splits: tuple[int, ...] = ()


LAYOUTS: Registry[Layout] = Registry("data set")
