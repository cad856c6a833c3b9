"""`respike score`: a checkpoint and shards it has not seen → accuracies."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli.defaults import choose_num_workers, find_data

if TYPE_CHECKING:
    from respike.data import ShardDataset
    from respike.progress import Progress
    from respike.zoo.checkpoint import CheckpointSpec
    from respike.zoo.scoring import Scores


@click.command(
    epilog="""\b
Examples:
  respike score runs/respike_r18-ucf101-split1
  respike score respike_tiny.demo16 --data demo/shards
  respike score runs/mine/last.safetensors --data shards/hmdb51-split1 --json
"""
)
@click.argument("checkpoint")
@click.option("--data", metavar="DIR", help="Prepared shards.  [default: the only set under shards/]")
@click.option("--subset", help="train, val or test.  [default: the one that the data set is scored on]")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Clips at a time.")
@click.option("--workers", type=click.IntRange(min=0), help="Loader processes.  [default: 0 on a CPU, else up to 8]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--confusion", type=click.Path(path_type=Path), metavar="FILE", help="Draw the confusion matrix (PNG).")
@click.option("--force", is_flag=True, help="Go on where checkpoint and data do not fit; the result says so.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors and the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON, fractions from 0 to 1.")
def command(
    checkpoint: str,
    data: str | None,
    subset: str | None,
    batch_size: int,
    workers: int | None,
    device: str,
    confusion: Path | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score CHECKPOINT, a run's folder, a .safetensors file or a name of the zoo, on shards that it has not seen.

    Top-1, top-5 and mean class accuracy, for single clips and for videos, whose probabilities are the mean of their
    clips'. Data whose data set, split, classes, stride or other clip settings differ from the training's is refused,
    and so are videos that were trained on.
    """
    from respike.cli import render
    from respike.data import make_loader, open_shards
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.device import resolve_device
    from respike.zoo.scoring import score

    progress = render.make_progress(quiet=quiet, json=as_json)
    place = resolve_device(device)
    model, spec = load_checkpoint(checkpoint, place, progress=progress)
    path = find_data(data)
    subset = subset or open_shards(path).spec.evaluation_subset
    dataset = open_shards(path, subset)
    is_forced = _overrule(spec, dataset, progress, force=force)
    loader = make_loader(
        dataset,
        batch_size=batch_size,
        training=False,
        image_size=spec.image_size,
        num_workers=choose_num_workers(workers, place.type),
    )
    scores = score(
        model,
        loader,
        num_classes=len(dataset.spec.classes),
        device=place,
        fingerprint=dataset.spec.fingerprint,
        forced=is_forced,
        progress=progress,
    )
    if confusion is not None:
        from respike.cli.curves import draw_confusion

        draw_confusion(scores.confusion, dataset.spec.classes, confusion)
    if as_json:
        render.print_json(scores.to_json())
    else:
        _report(scores, f"{subset} of {path}")


def _overrule(spec: "CheckpointSpec", dataset: "ShardDataset", progress: "Progress", *, force: bool) -> bool:
    """Refuse a mismatch, or with `force` warn of each; True where there was one to overrule."""
    from respike.zoo.scoring import check_compatible, find_mismatches

    videos = [row.video for row in dataset.clips]
    if not force:
        check_compatible(spec, dataset.spec, videos)
        return False
    reasons = find_mismatches(spec, dataset.spec, videos)
    for reason in reasons:
        progress.warn(reason)
    return bool(reasons)


def _report(scores: "Scores", what: str) -> None:
    from respike.cli import render

    rows = [
        [name, f"{count:,}", *map(render.format_share, (accuracy.top1, accuracy.top5, accuracy.mean_class_accuracy))]
        for name, count, accuracy in (
            ("clips", scores.num_clips, scores.clip),
            ("videos", scores.num_videos, scores.video),
        )
    ]
    render.print_table(["", "number", "top-1", "top-5", "mean class"], rows, title=what)
    if scores.forced:
        render.print_line("forced: checkpoint and data do not fit, so this is no result to report")
    render.print_line(f"data fingerprint {scores.fingerprint}")
