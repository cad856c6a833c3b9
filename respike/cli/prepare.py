"""`respike prepare`: raw videos to shards."""

import re
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import console, options
from respike.common.text import counted
from respike.data.prepare_config import DEFAULT_VIDEO_TIMEOUT_SECONDS, PrepareConfig

if TYPE_CHECKING:
    from respike.data.plan import Part
    from respike.data.preparation import Existing, PrepareSummary
    from respike.workflows.preparation import UnusedSettingError

_SHOWN_VIDEOS = 5


@click.command(
    epilog="""\b
Examples:
  respike prepare ucf101 --stride 4
  respike prepare ucf101 --download
  respike prepare hmdb51 --root /data/hmdb51 --split 2 --workers 16
  respike prepare kinetics400 --root /data/k400 --stride 2 --clips-per-video 2
  respike prepare kinetics400 --stride 2 --eval-clips 10   # for `respike score --views 10x3`
  respike prepare folder --root videos --list labels.csv --out shards/mine
  respike prepare ucf101 --retry-skipped --video-timeout 600
  respike prepare kinetics400 --engine ray --ray-address head:6379 --out s3://bucket/k400
  respike prepare kinetics400 --part 3/16   # 16 jobs, then `respike index shards/kinetics400`
"""
)
@options.video_options
@click.option(
    "--out",
    metavar="PATH|ADDRESS",
    help="Where shards go: a folder, or an address such as s3://….  [default: shards/DATASET[-splitN]]",
)
@options.config_options(
    PrepareConfig,
    sampling={"help": "dense: clips one after another; uniform: frames spread over the video.  [default: by data set]"},
)
@click.option("--resume", is_flag=True, help="Keep finished shards and continue; this is the default.")
@click.option("--retry-skipped", is_flag=True, help="Keep finished shards, and try skipped videos again.")
@click.option("--overwrite", is_flag=True, help="Delete what respike wrote to OUT and start again.")
@click.option(
    "--video-timeout",
    type=click.FloatRange(min=1),
    default=DEFAULT_VIDEO_TIMEOUT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Skip a video that gives no frame for this many seconds.",
)
@click.option(
    "--part",
    metavar="K/N",
    callback=options.parse_part,
    help="Make every N-th shard, from the K-th; `respike index OUT` joins the parts.",
)
@options.workers
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the work is done: processes of this machine, or a Ray cluster.",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="Head of the Ray cluster.  [default: $RAY_ADDRESS, else a Ray instance of this machine]",
)
@click.option("--download", is_flag=True, help="Download and unpack what is missing under the root.")
@click.option(
    "--sources",
    type=click.Path(path_type=Path),
    help="With --download: a TOML file of addresses instead of the published ones.",
)
@click.option("--drop-archives", is_flag=True, help="With --download: remove each archive once it is unpacked.")
@click.option("--offline", is_flag=True, help="With --download: use only archives that are there.")
@click.option("--strict", is_flag=True, help="Exit 1 if a video had to be skipped.")
@options.quiet
@options.as_json
def command(
    dataset: str,
    root: Path | None,
    list_path: Path | None,
    split: int | None,
    follow_symlinks: bool,
    out: str | None,
    resume: bool,
    retry_skipped: bool,
    overwrite: bool,
    video_timeout: float,
    part: "Part | None",
    workers: int | None,
    engine: str,
    ray_address: str | None,
    download: bool,
    sources: Path | None,
    drop_archives: bool,
    offline: bool,
    strict: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Turn raw videos into shards of key frames and residual events.

    DATASET is ucf101, hmdb51, kinetics400, kinetics600, kinetics700, folder (your own videos, in class folders or
    named in a list) or demo.

    Broken and missing videos, and those that crash or hang their decoder, are skipped, counted and named in
    skipped.jsonl. Run the same command again to continue a run that was stopped: finished shards are kept.
    """
    from respike.workflows.preparation import UnusedSettingError, prepare

    if resume + retry_skipped + overwrite > 1:
        raise click.UsageError("--resume, --retry-skipped and --overwrite exclude each other")
    existing: Existing = "overwrite" if overwrite else "retry-skipped" if retry_skipped else "resume"
    try:
        summary = prepare(
            dataset,
            root,
            out=out,
            split=split,
            list_path=list_path,
            follow_symlinks=follow_symlinks,
            config={name: value for name, value in settings.items() if value is not None},
            download=download,
            sources=sources,
            drop_archives=drop_archives,
            offline=offline,
            existing=existing,
            part=part,
            strict=strict,
            video_timeout_seconds=video_timeout,
            workers=workers,
            executor="ray" if engine == "ray" else "local",
            ray_address=ray_address,
            progress=console.make_progress(quiet=quiet, json=as_json),
        )
    except UnusedSettingError as error:
        raise spell_options(error) from error
    if as_json:
        console.print_json(gather_facts(summary) | {"warnings": list(summary.warnings)})
    elif not quiet:
        report(summary)


def spell_options(error: "UnusedSettingError") -> click.UsageError:
    """Return a usage error with the name of the option in place of that of the setting."""
    option = "--list" if error.setting == "list_path" else f"--{error.setting}".replace("_", "-")
    return click.UsageError(re.sub(rf"\b{error.setting}\b", option, f"{error.problem}; {error.hint}"))


def gather_facts(summary: "PrepareSummary") -> dict[str, Any]:
    """Return what a run did, as `--json` prints it."""
    stages = Counter(video.stage for video in summary.skipped_videos)
    speed = summary.speed
    return {
        "out": str(summary.out),
        "part": None if summary.part is None else str(summary.part),
        "listed": summary.listed,
        "written": summary.written,
        "partial": summary.num_partial,
        "skipped": summary.skipped,
        "skipped_by_stage": dict(stages.most_common()),
        "num_clips": summary.num_clips,
        "num_shards": summary.num_shards,
        "num_built": summary.num_built,
        "num_bytes": summary.num_bytes,
        "event_density": summary.event_density,
        "seconds": round(summary.seconds, 3),
        "videos_per_second": round(speed.videos_per_second, 3),
        "frames_per_second": round(speed.frames_per_second, 1),
        "times_real_time": round(speed.times_real_time, 2),
        "slowest": [{"video": video, "seconds": seconds} for video, seconds in speed.slowest],
        "next": _next_command(summary),
    }


def report(summary: "PrepareSummary") -> None:
    """Print what a run did, the slowest and the skipped videos, and the next command."""
    facts = {
        "videos": f"{summary.written:,} written, {summary.skipped:,} skipped of {summary.listed:,}",
        "clips": f"{summary.num_clips:,} in {counted(summary.num_shards, 'shard')}",
        "size": f"{console.format_bytes(summary.num_bytes)}, "
        f"{console.format_bytes(summary.num_bytes / max(1, summary.num_clips))} a clip",
        "events": f"{console.format_share(summary.event_density)} of the stored samples are not zero",
        "time": _time(summary),
    }
    if summary.part is not None:
        facts = {"part": str(summary.part)} | facts
    if summary.num_partial:
        facts["partial"] = f"damaged videos kept up to the damage: {summary.num_partial:,}"
    speed = summary.speed
    if speed.num_frames:
        facts["speed"] = (
            f"{console.format_rate(speed.videos_per_second, 'videos')}, "
            f"{speed.frames_per_second:,.0f} frames/s, {speed.times_real_time:.1f} × real time"
        )
        facts["slowest"] = ", ".join(f"{video} {console.format_seconds(spent)}" for video, spent in speed.slowest[:3])
    console.print_facts(facts | {"out": str(summary.out)})
    for video in summary.skipped_videos[:_SHOWN_VIDEOS]:
        console.print_line(f"skipped {video.video}: {video.stage}: {video.reason}")
    if (num_more := summary.skipped - _SHOWN_VIDEOS) > 0:
        where = "named when the parts are joined" if summary.part else f"named in {summary.skipped_path}"
        console.print_line(f"skipped {num_more:,} more, {where}")
    console.print_line(f"next: {_next_command(summary)}")


def _next_command(summary: "PrepareSummary") -> str:
    out = shlex.quote(str(summary.out))
    if summary.part is not None and summary.part.count > 1:
        return f"respike index {out}, once all {summary.part.count} parts are done"
    return f"respike index {out}" if summary.part else f"respike train --data {out}"


def _time(summary: "PrepareSummary") -> str:
    spent = console.format_seconds(summary.seconds)
    if not summary.num_built:
        return f"{spent}; all was done before"
    if summary.num_built < summary.num_shards:
        return f"{spent} for {summary.num_built:,} of the shards; the others were done before"
    return spent
