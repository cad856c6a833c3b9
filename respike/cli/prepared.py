"""What a run of `respike prepare` or `respike index` has to report, for people and for scripts."""

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from respike.wording import counted

if TYPE_CHECKING:
    from respike.data.prepare import PrepareSummary

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
    from respike.cli import render

    facts = {
        "videos": f"{summary.written:,} written, {summary.skipped:,} skipped of {summary.listed:,}",
        "clips": f"{summary.num_clips:,} in {counted(summary.num_shards, 'shard')}",
        "size": f"{render.format_bytes(summary.num_bytes)}, "
        f"{render.format_bytes(summary.num_bytes / max(1, summary.num_clips))} a clip",
        "events": f"{render.format_share(summary.event_density)} of the stored samples are not zero",
        "time": _time(summary),
    }
    if summary.part is not None:
        facts = {"part": str(summary.part)} | facts
    if summary.num_partial:
        facts["partial"] = f"{counted(summary.num_partial, 'damaged video')} kept up to the damage"
    speed = summary.speed
    if speed.num_frames:
        facts["speed"] = (
            f"{render.format_rate(speed.videos_per_second, 'videos')}, "
            f"{speed.frames_per_second:,.0f} frames/s, {speed.times_real_time:.1f} × real time"
        )
        facts["slowest"] = ", ".join(f"{video} {render.format_seconds(spent)}" for video, spent in speed.slowest[:3])
    render.print_facts(facts | {"out": str(summary.out)})
    for video in summary.skipped_videos[:_SHOWN_VIDEOS]:
        render.print_line(f"skipped {video.video}: {video.stage}: {video.reason}")
    if (num_more := summary.skipped - _SHOWN_VIDEOS) > 0:
        where = "named when the parts are joined" if summary.part else f"named in {summary.skipped_path}"
        render.print_line(f"skipped {num_more:,} more, {where}")
    render.print_line(f"next: {_next_command(summary)}")


def _next_command(summary: "PrepareSummary") -> str:
    out = shlex.quote(str(summary.out))
    if summary.part is not None and summary.part.count > 1:
        return f"respike index {out}, once all {summary.part.count} parts are done"
    return f"respike index {out}" if summary.part else f"respike train --data {out}"


def _time(summary: "PrepareSummary") -> str:
    from respike.cli import render

    spent = render.format_seconds(summary.seconds)
    if not summary.num_built:
        return f"{spent}; all was done before"
    if summary.num_built < summary.num_shards:
        return f"{spent} for {summary.num_built:,} of the shards; the others were done before"
    return spent
