"""`respike prepare`: raw videos to shards; `respike index`: parts to one data set."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import options
from respike.cli.options import DownloadChoice, ExistingChoice, choose_engine, choose_settings
from respike.common.text import counted

if TYPE_CHECKING:
    from respike.data.plan import Part
    from respike.data.preparation import PrepareSummary


_SHOWN_VIDEOS = 5


def gather_facts(summary: "PrepareSummary") -> dict[str, Any]:
    """What a run did, as `--json` prints it."""
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
    from respike.cli import console

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
        facts["partial"] = f"{counted(summary.num_partial, 'damaged video')} kept up to the damage"
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
    from respike.cli import console

    spent = console.format_seconds(summary.seconds)
    if not summary.num_built:
        return f"{spent}; all was done before"
    if summary.num_built < summary.num_shards:
        return f"{spent} for {summary.num_built:,} of the shards; the others were done before"
    return spent


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
@options.video_choice
@click.option(
    "--out",
    metavar="PATH|ADDRESS",
    help="Where shards go: a folder, or an address such as s3://….  [default: shards/DATASET[-splitN]]",
)
@click.option("--stride", default=4, show_default=True, help="Frames a group: one key frame, the rest residuals.")
@click.option("--clip-length", default=16, show_default=True, help="Frames a clip.")
@click.option("--sampling", type=click.Choice(["dense", "uniform"]), help="How clips are cut.  [default: by data set]")
@click.option("--clip-step", type=int, help="dense: frames from clip to clip.  [default: clip length]")
@click.option("--clips-per-video", type=int, help="uniform: clips drawn from a training video.  [default: 4]")
@click.option("--eval-clips", type=int, help="uniform: clips stored of a video to evaluate.  [default: 1]")
@click.option("--frame-stride", default=1, show_default=True, help="Take every n-th frame of the video.")
@click.option("--short-side", default=256, show_default=True, help="Most pixels of the short side; never scaled up.")
@click.option(
    "--threshold",
    default=8,
    show_default=True,
    metavar="θ",
    help="Contrast threshold of events, in grey levels; 1 is exact.",
)
@click.option(
    "--color",
    type=click.Choice(["ycc", "rgb"]),
    default="ycc",
    show_default=True,
    help="Planes that events are taken on.",
)
@click.option("--key-quality", default=90, show_default=True, help="JPEG quality of key frames, 1 to 100.")
@click.option("--videos-per-shard", default=64, show_default=True, help="Listed videos a shard.")
@options.packed(
    "before",
    ExistingChoice,
    click.option("--resume", is_flag=True, help="Keep finished shards and go on; this is what happens anyway."),
    click.option("--retry-skipped", is_flag=True, help="The same, and try again what was skipped before."),
    click.option("--overwrite", is_flag=True, help="Delete what respike wrote to OUT and make it anew."),
)
@click.option("--keep-partial", is_flag=True, help="Keep the part of a damaged video that comes before the damage.")
@click.option(
    "--video-timeout",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Skip a video that gives no frame for so long.",
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
    help="Who does the work: processes of this machine, or a Ray cluster.",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="Head of the Ray cluster.  [default: $RAY_ADDRESS, else a Ray instance of this machine]",
)
@click.option("--seed", default=0, show_default=True, help="Order of videos in shards, training draws, splits.")
@options.packed(
    "fetching",
    DownloadChoice,
    click.option("--download", is_flag=True, help="Fetch and unpack what is missing under the root."),
    click.option(
        "--sources", type=click.Path(path_type=Path), help="--download: TOML of addresses other than the published."
    ),
    click.option("--drop-archives", is_flag=True, help="--download: remove each archive once it is unpacked."),
    click.option("--offline", is_flag=True, help="--download: ask no network, use archives that are there."),
)
@click.option("--strict", is_flag=True, help="Exit 1 if a video had to be skipped.")
@options.quiet
@options.as_json
def command(
    videos: options.VideoChoice,
    out: str | None,
    before: ExistingChoice,
    video_timeout: float,
    part: "Part | None",
    workers: int | None,
    engine: str,
    ray_address: str | None,
    fetching: DownloadChoice,
    strict: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Turn raw videos into shards of key frames and residual events.

    DATASET is ucf101, hmdb51, kinetics400, kinetics600, kinetics700, folder (your own videos, in class folders or
    named in a list) or demo.

    Broken and missing videos, and those that crash or hang their decoder, are skipped, counted and named in
    skipped.jsonl. Run the same command again to go on where a run was stopped: finished shards are kept.
    """
    from respike.cli import console
    from respike.data.preparation import prepare

    existing = before.choose(part)
    chosen = choose_settings(videos, settings)
    request = videos.request(seed=chosen.seed)
    progress = console.make_progress(quiet=quiet, json=as_json)
    fetching.fetch(videos.layout, request, progress)
    listing = videos.layout.list_videos(request)
    summary = prepare(
        listing,
        out or _default_out(videos.dataset, request.split),
        chosen,
        num_workers=workers,
        strict=strict,
        existing=existing,
        part=part,
        video_timeout_seconds=video_timeout,
        executor=choose_engine(engine, ray_address),
        progress=progress,
    )
    if as_json:
        console.print_json(gather_facts(summary) | {"warnings": list(listing.warnings)})
    elif not quiet:
        report(summary)


def _default_out(dataset: str, split: int | None) -> Path:
    return Path("shards") / (dataset if split is None else f"{dataset}-split{split}")
