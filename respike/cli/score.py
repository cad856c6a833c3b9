"""`respike score`: checkpoints and shards that they were not trained on to accuracies."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli import completion, console, options
from respike.cli.options import PICTURE, OutputFile, check_outputs
from respike.common.text import counted
from respike.zoo.train_config import AMPS

if TYPE_CHECKING:
    from respike.data.loader import Views
    from respike.workflows.evaluation import Scored
    from respike.zoo.metrics import Accuracy
    from respike.zoo.predictions import Provenance
    from respike.zoo.scoring import Scores, ScoreSet
    from respike.zoo.train_config import Amp


_COLUMNS = ("top-1", "top-5", "mean class", "calibration error")
_SHOWN_MISSING = 3
_FORCED = "forced: checkpoint and data do not fit, so this is no result to report"


def _parse_views(ctx: click.Context, param: click.Parameter, value: str) -> "Views":
    from respike.common.errors import SettingError
    from respike.data.loader import parse_views

    try:
        return parse_views(value)
    except SettingError as error:
        raise click.BadParameter(f"{error.problem}: {error.hint}") from error


@click.command(
    epilog="""\b
Examples:
  respike score runs/respike_r18-ucf101-split1
  respike score respike_tiny.demo16 --data demo/shards
  respike score runs/mine/last.safetensors --data shards/hmdb51-split1 --json
  respike score runs/mine --views 10x3 --predictions mine.safetensors
  respike score --from mine.safetensors --per-class --confusion confusion.png
  respike score runs/split1 runs/split2 runs/split3   # each, mean and deviation
"""
)
@click.argument("checkpoints", nargs=-1, metavar="[CHECKPOINT]...", shell_complete=completion.checkpoints)
@click.option(
    "--data",
    shell_complete=completion.data_sets,
    multiple=True,
    metavar="DIR",
    help="Prepared shards; with several checkpoints once, or once each.  [default: those under shards/ that fit]",
)
@click.option("--subset", help="train, val or test.  [default: the one that the data set is scored on]")
@click.option(
    "--views",
    default="all",
    show_default=True,
    callback=_parse_views,
    metavar="N|NxM",
    help="Clips of a video, evenly spread, times 1 or 3 crops along the longer side: 1, 3, 10x3, allx3.",
)
@click.option(
    "--eval-crop",
    type=click.FloatRange(min=0, min_open=True, max=1),
    metavar="SHARE",
    help="Side of a crop as a share of the short side.  [default: as in validation]",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Clips at a time.")
@click.option("--workers", type=click.IntRange(min=0), help="Loader processes.  [default: 0 on a CPU, else up to 8]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option(
    "--amp",
    type=click.Choice(AMPS),
    default="no",
    show_default=True,
    help="Mixed precision.",
)
@click.option("--per-class", is_flag=True, help="Print the accuracy of each class, the lowest first.")
@click.option("--confusion", type=OutputFile(PICTURE), metavar="FILE", help="Draw the confusion matrix (PNG).")
@click.option(
    "--predictions",
    "kept",
    type=OutputFile(),
    multiple=True,
    metavar="FILE",
    help="Write the probabilities of each view (safetensors); with several checkpoints once each.",
)
@options.overwrite
@click.option(
    "--from",
    "sources",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Score files that --predictions wrote, without network and shards.",
)
@click.option("--force", is_flag=True, help="Score although checkpoint and data do not fit; the result says so.")
@click.option("--quiet", is_flag=True, help="Print only errors and the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON, fractions from 0 to 1.")
def command(
    checkpoints: tuple[str, ...],
    data: tuple[str, ...],
    subset: str | None,
    views: "Views",
    eval_crop: float | None,
    batch_size: int,
    workers: int | None,
    device: str,
    amp: "Amp",
    per_class: bool,
    confusion: Path | None,
    kept: tuple[Path, ...],
    sources: tuple[Path, ...],
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score CHECKPOINTs, run folders, .safetensors files or names of the zoo, on shards that they were not trained on.

    Prints top-1, top-5, mean class accuracy and calibration error, for single clips and for videos. The probabilities
    of a video are the mean over its views. Data with another data set, split, classes, stride or other clip settings
    than in training is refused, and so are videos that were trained on. For several checkpoints, one for each split or
    seed, it prints each score, the mean and the deviation.
    """
    from respike.workflows.evaluation import evaluate_all, read_scored, summarise

    _check_usage(checkpoints, sources, data, kept, confusion)
    check_outputs(click.get_current_context())
    progress = console.make_progress(quiet=quiet, json=as_json)
    if sources:
        scored = [read_scored(path) for path in sources]
    else:
        scored = evaluate_all(
            checkpoints,
            data,
            subset=subset,
            views=views,
            eval_crop=eval_crop,
            batch_size=batch_size,
            workers=workers,
            device=device,
            amp=amp,
            predictions=kept,
            force=force,
            progress=progress,
        )
    if confusion is not None:
        from respike.workflows.plots import draw_confusion, save_figure

        save_figure(draw_confusion(scored[0].scores.confusion, scored[0].classes), confusion)
    together = summarise(scored, progress) if len(scored) > 1 else None
    if as_json and together is None:
        console.print_json(scored[0].scores.to_json(scored[0].classes))
    elif as_json and together is not None:
        console.print_json(together.to_json([each.classes for each in scored]))
    elif together is None:
        _print_scores(scored[0], per_class=per_class)
    else:
        _print_all(scored, together, per_class=per_class)


def _check_usage(
    checkpoints: Sequence[str],
    sources: Sequence[Path],
    data: Sequence[str],
    kept: Sequence[Path],
    confusion: Path | None,
) -> None:
    if sources and (checkpoints or data or kept or (unused := _find_unused())):
        others = "CHECKPOINT, --data and --predictions" if checkpoints or data or kept else ", ".join(unused)
        raise click.UsageError(f"--from scores files without a network: leave {others} out")
    if not sources and not checkpoints:
        raise click.UsageError("Missing argument 'CHECKPOINT': name the folder of a run, or predictions with --from")
    num_scored = len(sources or checkpoints)
    if kept and len(kept) != num_scored:
        raise click.UsageError(f"files for --predictions: {len(kept)}, checkpoints: {num_scored}")
    if confusion is not None and num_scored > 1:
        raise click.UsageError("--confusion is for one checkpoint: score them one by one")


def _find_unused() -> list[str]:
    """Return the options on the command line that `--from` does not use."""
    context = click.get_current_context()
    names = ("subset", "views", "eval_crop", "batch_size", "workers", "device", "amp", "force")
    given = [name for name in names if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    return [f"--{name.replace('_', '-')}" for name in given]


def _print_scores(scored: "Scored", *, per_class: bool) -> None:
    """Print the scores of one checkpoint and what they were computed on."""
    scores = scored.scores
    rows = [
        ["clips", f"{scores.num_clips:,}", *_cells(scores.clip, scores.clip_calibration)],
        ["videos", f"{scores.num_videos:,}", *_cells(scores.video, scores.video_calibration)],
    ]
    console.print_table(["", "number", *_COLUMNS], rows, title=_title(scored))
    if per_class:
        _print_classes(scored)
    if scores.provenance is not None:
        console.print_facts(_facts(scores.provenance, scores))
    if scores.forced:
        _print_forced(scores.provenance)
    console.print_line(f"data fingerprint {scores.fingerprint}")


def _print_all(scored: "Sequence[Scored]", together: "ScoreSet", *, per_class: bool) -> None:
    """Print the scores of several checkpoints, their mean and deviation."""
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
            rows.append([title, "", "", *map(console.format_share, values)])
        console.print_table(["checkpoint", "data", name, *_COLUMNS], rows, title=name)
    for each in scored:
        if per_class:
            _print_classes(each)
        if each.scores.provenance is not None:
            console.print_facts(_facts(each.scores.provenance, each.scores), title=each.title)
        if each.scores.forced:
            _print_forced(each.scores.provenance)


def _cells(accuracy: "Accuracy", calibration: float) -> list[str]:
    values = (accuracy.top1, accuracy.top5, accuracy.mean_class_accuracy, calibration)
    return [console.format_share(value) for value in values]


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
    console.print_line(_FORCED)
    for reason in provenance.overruled if provenance is not None else ():
        console.print_line(f"overruled: {reason}")


def _print_classes(scored: "Scored") -> None:
    """Print the accuracy of each class, the lowest first."""

    def share(value: float | None) -> str:
        return "–" if value is None else console.format_share(value)

    pairs = zip(scored.classes, scored.scores.per_class, strict=True)
    weakest = sorted(pairs, key=lambda pair: (2.0 if pair[1].video_top1 is None else pair[1].video_top1, pair[0]))
    rows = [
        (name, f"{each.num_clips:,}", share(each.clip_top1), f"{each.num_videos:,}", share(each.video_top1))
        for name, each in weakest
    ]
    console.print_table(("class", "clips", "top-1", "videos", "top-1"), rows, title=f"classes of {scored.title}")
