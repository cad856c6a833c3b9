"""`respike prepare`: raw videos → shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.errors import RespikeError

if TYPE_CHECKING:
    from respike.data.layouts import Layout
    from respike.data.prepare import PrepareSettings, PrepareSummary

DATASETS = ("ucf101", "hmdb51", "kinetics400", "kinetics600", "kinetics700", "folder", "demo")
_SHOWN_REASONS = 5


@click.command(
    epilog="""\b
Examples:
  respike prepare ucf101 --stride 4
  respike prepare hmdb51 --root /data/hmdb51 --split 2 --workers 16
  respike prepare kinetics400 --root /data/k400 --stride 2
  respike prepare folder --root videos --list labels.csv --out shards/mine
"""
)
@click.argument("dataset", type=click.Choice(DATASETS))
@click.option("--root", type=click.Path(path_type=Path), help="Where the videos lie.  [default: data/DATASET]")
@click.option("--out", type=click.Path(path_type=Path), help="Where shards go.  [default: shards/DATASET[-splitN]]")
@click.option(
    "--list", "list_path", type=click.Path(path_type=Path), help="folder: CSV or JSONL of path,label[,subset]."
)
@click.option("--stride", default=4, show_default=True, help="Frames a group: one key frame, the rest residuals.")
@click.option("--clip-length", default=16, show_default=True, help="Frames a clip.")
@click.option("--sampling", type=click.Choice(["dense", "uniform"]), help="How clips are cut.  [default: by data set]")
@click.option("--clip-step", type=int, help="dense: frames from clip to clip.  [default: clip length]")
@click.option("--clips-per-video", type=int, help="uniform: training draws a video.  [default: 4]")
@click.option("--frame-stride", default=1, show_default=True, help="Take every n-th frame of the video.")
@click.option("--split", type=int, help="Which official split.  [default: 1 where there are splits]")
@click.option("--short-side", default=256, show_default=True, help="Most pixels of the short side; never scaled up.")
@click.option("--threshold", default=8, show_default=True, metavar="θ", help="Grey levels a step of an event.")
@click.option("--color", type=click.Choice(["ycc", "rgb"]), default="ycc", show_default=True, help="Planes of events.")
@click.option("--key-quality", default=90, show_default=True, help="JPEG quality of key frames, 1 to 100.")
@click.option("--videos-per-shard", default=64, show_default=True, help="Listed videos a shard.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--seed", default=0, show_default=True, help="Order of videos in shards, training draws, splits.")
@click.option("--strict", is_flag=True, help="Fail if any video was skipped.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(
    dataset: str,
    root: Path | None,
    out: Path | None,
    list_path: Path | None,
    split: int | None,
    workers: int | None,
    strict: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Turn raw videos into shards of key frames and residual events.

    Broken and missing videos are skipped, counted and named in skipped.jsonl. Run the same command again to go on
    where a run was stopped: finished shards are kept.
    """
    from respike.cli import render
    from respike.data.layouts import LAYOUTS, ListingRequest
    from respike.data.prepare import prepare

    layout = LAYOUTS.get(dataset)
    split = _check_fit(layout, split, list_path)
    chosen = _settings(layout, settings)
    root = root or Path("data") / dataset
    out = out or Path("shards") / (dataset if split is None else f"{dataset}-split{split}")
    listing = layout.list_videos(ListingRequest(root=root, split=split, seed=chosen.seed, list_path=list_path))
    progress = render.make_progress(quiet=quiet, json=as_json)
    summary = prepare(listing, out, chosen, num_workers=workers, strict=strict, progress=progress)
    if as_json:
        render.print_json(_facts(summary))
    elif not quiet:
        _report(summary)


def _check_fit(layout: "Layout", split: int | None, list_path: Path | None) -> int | None:
    """Refuse options that do not fit the data set; return its split."""
    if list_path is not None and layout.name != "folder":
        raise click.UsageError(f"--list goes with `folder`; {layout.name} has official lists")
    if split is not None and split not in layout.splits:
        allowed = f"has splits {', '.join(map(str, layout.splits))}" if layout.splits else "has no splits"
        raise click.UsageError(f"--split {split}: {layout.name} {allowed}")
    return split if split is not None or not layout.splits else layout.splits[0]


def _settings(layout: "Layout", given: dict[str, Any]) -> "PrepareSettings":
    from respike.data.prepare import PrepareSettings

    sampling = given["sampling"] or layout.default_sampling
    if given["clip_step"] is not None and sampling == "uniform":
        raise click.UsageError("--clip-step goes with --sampling dense")
    if given["clips_per_video"] is not None and sampling == "dense":
        raise click.UsageError("--clips-per-video goes with --sampling uniform")
    chosen = {name: value for name, value in given.items() if value is not None} | {"sampling": sampling}
    return PrepareSettings(**chosen)


def _facts(summary: "PrepareSummary") -> dict[str, Any]:
    names = ("listed", "written", "skipped", "num_clips", "num_shards", "num_built", "num_bytes", "event_density")
    facts = {name: getattr(summary, name) for name in names}
    return {"out": str(summary.out)} | facts | {"seconds": round(summary.seconds, 3)}


def _report(summary: "PrepareSummary") -> None:
    from respike.cli import render

    rate = f", {summary.written / summary.seconds:.1f} videos/s" if summary.num_built else ", nothing to do"
    facts = {
        "videos": f"{summary.written:,} written, {summary.skipped:,} skipped of {summary.listed:,}",
        "clips": f"{summary.num_clips:,} in {summary.num_shards:,} shards, {render.format_bytes(summary.num_bytes)}",
        "events": f"{render.format_share(summary.event_density)} of the samples are not zero",
        "time": render.format_seconds(summary.seconds) + rate,
        "out": summary.out,
    }
    render.print_facts(facts)
    for video in summary.skipped_videos[:_SHOWN_REASONS]:
        render.print_line(f"skipped {video.video}: {video.stage}: {video.reason}")
    if summary.skipped > _SHOWN_REASONS:
        render.print_line(f"… and {summary.skipped - _SHOWN_REASONS:,} more in {summary.out / 'skipped.jsonl'}")
    if not summary.num_clips:
        raise RespikeError("no clip was written", f"see {summary.out / 'skipped.jsonl'}")
    render.print_line(f"next: respike train --data {summary.out}")
