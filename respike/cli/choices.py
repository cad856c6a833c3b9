"""What `respike prepare` makes of its options: the engine, what becomes of an earlier run's output."""

from functools import partial
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from respike.data.engines.base import Engine
    from respike.data.plan import Part
    from respike.data.prepare import Existing


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
