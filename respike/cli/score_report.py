"""Score report: what `respike score` prints for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from respike.wording import counted

if TYPE_CHECKING:
    from respike.cli.scoring import Scored
    from respike.zoo.metrics import Accuracy
    from respike.zoo.provenance import Provenance
    from respike.zoo.score_set import ScoreSet
    from respike.zoo.scoring import Scores

_COLUMNS = ("top-1", "top-5", "mean class", "calibration error")
_SHOWN_MISSING = 3
_FORCED = "forced: checkpoint and data do not fit, so this is no result to report"


def report(scored: "Scored", *, per_class: bool) -> None:
    """Print one checkpoint's scores and what they were made on."""
    from respike.cli import render

    scores = scored.scores
    rows = [
        ["clips", f"{scores.num_clips:,}", *_cells(scores.clip, scores.clip_calibration)],
        ["videos", f"{scores.num_videos:,}", *_cells(scores.video, scores.video_calibration)],
    ]
    render.print_table(["", "number", *_COLUMNS], rows, title=_title(scored))
    if per_class:
        _print_classes(scored)
    if scores.provenance is not None:
        render.print_facts(_facts(scores.provenance, scores))
    if scores.forced:
        _print_forced(scores.provenance)
    render.print_line(f"data fingerprint {scores.fingerprint}")


def report_set(scored: "Sequence[Scored]", together: "ScoreSet", *, per_class: bool) -> None:
    """Print the scores of several checkpoints, their mean and deviation."""
    from respike.cli import render

    for kind, name in (("clip", "clips"), ("video", "videos")):
        rows = [
            [
                each.title,
                _data(each.scores.provenance),
                f"{each.scores.num_clips if kind == 'clip' else each.scores.num_videos:,}",
                *_cells(
                    each.scores.clip if kind == "clip" else each.scores.video,
                    each.scores.clip_calibration if kind == "clip" else each.scores.video_calibration,
                ),
            ]
            for each in scored
        ]
        for title, figures in (("mean", together.mean), ("deviation", together.deviation)):
            values = [*figures[kind].values(), figures["calibration"][kind]]
            rows.append([title, "", "", *map(render.format_share, values)])
        render.print_table(["checkpoint", "data", name, *_COLUMNS], rows, title=name)
    for each in scored:
        if per_class:
            _print_classes(each)
        if each.scores.provenance is not None:
            render.print_facts(_facts(each.scores.provenance, each.scores), title=each.title)
        if each.scores.forced:
            _print_forced(each.scores.provenance)


def _cells(accuracy: "Accuracy", calibration: float) -> list[str]:
    from respike.cli import render

    values = (accuracy.top1, accuracy.top5, accuracy.mean_class_accuracy, calibration)
    return [render.format_share(value) for value in values]


def _title(scored: "Scored") -> str:
    provenance = scored.scores.provenance
    return scored.title if provenance is None else f"{scored.title} on {provenance.subset} of {_data(provenance)}"


def _data(provenance: "Provenance | None") -> str:
    if provenance is None:
        return "–"
    return f"{provenance.dataset}{'' if provenance.split is None else f' split {provenance.split}'}"


def _facts(provenance: "Provenance", scores: "Scores") -> dict[str, str]:
    settings = provenance.settings
    names = ("sampling", "clip_length", "stride", "frame_stride", "threshold", "color")
    asked = "all stored clips"
    if provenance.clips_asked is not None:
        asked = f"at most {counted(provenance.clips_asked, 'clip')}"
    crops = "centre crop" if provenance.crops == 1 else f"{provenance.crops} crops"
    if provenance.eval_crop != 1:
        crops += f" of {provenance.eval_crop:g} of the short side"
    return {
        "views": f"{scores.num_views:,}: {asked} of a video, {crops} at {provenance.image_size} pixels",
        "clips": ", ".join(f"{name.replace('_', ' ')} {settings[name]}" for name in names if name in settings),
        "missing": _missing(provenance, scores.num_videos),
        "network": f"{provenance.network}, {provenance.branches}, epoch {provenance.epoch}, "
        f"weights {provenance.weights_sha256[:12]}",
        "made by": f"respike {provenance.respike_version}, torch {provenance.torch_version}, {provenance.device}"
        + ("" if provenance.amp in (None, "no") else f", in mixed precision {provenance.amp}"),
    }


def _missing(provenance: "Provenance", num_scored: int) -> str:
    """How many videos of the subset could not be scored, and the first of them."""
    names = provenance.missing
    if names is None:
        return f"{provenance.num_skipped:,} of the {provenance.num_listed:,} videos listed, in all subsets"
    count = f"{len(names):,} of the {num_scored + len(names):,} videos of {provenance.subset}"
    more = f" and {len(names) - _SHOWN_MISSING:,} more" if len(names) > _SHOWN_MISSING else ""
    return f"{count}{': ' if names else ''}{', '.join(names[:_SHOWN_MISSING])}{more}"


def _print_forced(provenance: "Provenance | None") -> None:
    from respike.cli import render

    render.print_line(_FORCED)
    for reason in provenance.overruled if provenance is not None else ():
        render.print_line(f"overruled: {reason}")


def _print_classes(scored: "Scored") -> None:
    """Each class's shares, the weakest first."""
    from respike.cli import render

    def share(value: float | None) -> str:
        return "–" if value is None else render.format_share(value)

    pairs = zip(scored.classes, scored.scores.per_class, strict=True)
    weakest = sorted(pairs, key=lambda pair: (2.0 if pair[1].video_top1 is None else pair[1].video_top1, pair[0]))
    rows = [
        (name, f"{each.num_clips:,}", share(each.clip_top1), f"{each.num_videos:,}", share(each.video_top1))
        for name, each in weakest
    ]
    render.print_table(("class", "clips", "top-1", "videos", "top-1"), rows, title=f"classes of {scored.title}")
