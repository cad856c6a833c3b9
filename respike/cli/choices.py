"""What `respike prepare` makes of its options together: engine, settings, an earlier run's output, downloads."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from respike.cli.options import VideoChoice
    from respike.data.building.plan import Part
    from respike.data.engines.base import Engine
    from respike.data.layouts import Layout, ListingRequest
    from respike.data.prepare import Existing
    from respike.data.settings import PrepareSettings
    from respike.progress import Progress


def choose_engine(name: str, ray_address: str | None) -> "Engine":
    """The engine of `--engine` and `--ray-address`. Raises UsageError where they do not fit."""
    from respike.data.engines import local, ray

    if name == "ray":
        return partial(ray.run, address=ray_address)
    if ray_address is not None:
        raise click.UsageError("--ray-address goes with --engine ray; this is local")
    return local.run


@dataclass(frozen=True, kw_only=True)
class ExistingChoice:
    """What becomes of what an earlier run left. Raises UsageError where two exclude each other."""

    resume: bool
    retry_skipped: bool
    overwrite: bool

    def __post_init__(self) -> None:
        if self.resume + self.retry_skipped + self.overwrite > 1:
            raise click.UsageError("--resume, --retry-skipped and --overwrite exclude each other")

    def choose(self, part: "Part | None") -> "Existing":
        """The way that was chosen. Raises UsageError where it is none for a run that makes a part."""
        if self.overwrite and part is not None:
            raise click.UsageError("--overwrite would delete what the other parts made; use it without --part first")
        return "overwrite" if self.overwrite else "retry-skipped" if self.retry_skipped else "resume"


@dataclass(frozen=True, kw_only=True)
class DownloadChoice:
    """Whether and how what a data set lacks is fetched. Raises UsageError where a way is given to fetch nothing."""

    download: bool
    sources: Path | None
    drop_archives: bool
    offline: bool

    def __post_init__(self) -> None:
        if not self.download and (self.sources or self.drop_archives or self.offline):
            raise click.UsageError("--sources, --drop-archives and --offline go with --download")

    def fetch(self, layout: "Layout", request: "ListingRequest", progress: "Progress") -> None:
        """Fetch and unpack what the data set lacks, if that was asked for."""
        if not self.download:
            return
        from respike.data.obtain import ObtainSettings, obtain, read_sources

        obtain(
            request.root,
            read_sources(layout.name, self.sources),
            lambda: layout.list_videos(request),
            ObtainSettings(drop_archives=self.drop_archives, offline=self.offline),
            progress=progress,
        )


def choose_settings(videos: "VideoChoice", given: dict[str, Any]) -> "PrepareSettings":
    """The settings of the options, with the data set's own sampling unless one is given.

    Raises UsageError for options that would do nothing on this data set or with this sampling, SettingError for a value
    that is not allowed.
    """
    from respike.data.settings import PrepareSettings

    layout, split = videos.layout, videos.split
    if split is not None and split not in layout.splits:
        allowed = f"has splits {', '.join(map(str, layout.splits))}" if layout.splits else "has no splits"
        raise click.UsageError(f"--split {split}: {layout.name} {allowed}")
    # what was not given has its default in the settings
    values = {"sampling": layout.default_sampling} | {name: each for name, each in given.items() if each is not None}
    if "clip_step" in values and values["sampling"] == "uniform":
        raise click.UsageError("--clip-step goes with --sampling dense; this is uniform")
    if "clips_per_video" in values and values["sampling"] == "dense":
        raise click.UsageError("--clips-per-video goes with --sampling uniform; this is dense")
    if "eval_clips" in values and values["sampling"] == "dense":
        raise click.UsageError("--eval-clips goes with --sampling uniform; dense stores every clip of a video")
    return PrepareSettings(**values)
