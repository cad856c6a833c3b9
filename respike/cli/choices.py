"""What `respike prepare` makes of its options together: the engine, an earlier run's output, what does not fit."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from respike.data.building.plan import Part
    from respike.data.engines.base import Engine
    from respike.data.layouts import Layout
    from respike.data.prepare import Existing
    from respike.data.sampling import Sampling


def choose_engine(name: str, ray_address: str | None) -> "Engine":
    """The engine of `--engine` and `--ray-address`. Raises UsageError where they do not fit."""
    from respike.data.engines import local, ray

    if name == "ray":
        return partial(ray.run, address=ray_address)
    if ray_address is not None:
        raise click.UsageError("--ray-address goes with --engine ray; this is local")
    return local.run


def choose_existing(*, resume: bool, retry_skipped: bool, overwrite: bool, part: "Part | None") -> "Existing":
    """The way with what an earlier run left. Raises UsageError where the options exclude each other."""
    if resume + retry_skipped + overwrite > 1:
        raise click.UsageError("--resume, --retry-skipped and --overwrite exclude each other")
    if overwrite and part is not None:
        raise click.UsageError("--overwrite would delete what the other parts made; use it without --part first")
    return "overwrite" if overwrite else "retry-skipped" if retry_skipped else "resume"


def check_fit(
    layout: "Layout",
    sampling: "Sampling",
    *,
    split: int | None,
    list_path: Path | None,
    clip_step: int | None,
    clips_per_video: int | None,
    eval_clips: int | None,
) -> None:
    """Refuse options that would do nothing on this data set or with this sampling."""
    if list_path is not None and layout.name != "folder":
        raise click.UsageError(f"--list goes with `folder`; {layout.name} has lists of its own")
    if split is not None and split not in layout.splits:
        allowed = f"has splits {', '.join(map(str, layout.splits))}" if layout.splits else "has no splits"
        raise click.UsageError(f"--split {split}: {layout.name} {allowed}")
    if clip_step is not None and sampling == "uniform":
        raise click.UsageError("--clip-step goes with --sampling dense; this is uniform")
    if clips_per_video is not None and sampling == "dense":
        raise click.UsageError("--clips-per-video goes with --sampling uniform; this is dense")
    if eval_clips is not None and sampling == "dense":
        raise click.UsageError("--eval-clips goes with --sampling uniform; dense stores every clip of a video")
