"""`respike train`: shards → a trained network in a run folder."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.zoo.train_config import AMPS, Amp, TrainConfig

if TYPE_CHECKING:
    from respike.cli.training import TrainOutcome
    from respike.zoo.nn.backbone import BackboneWeights
    from respike.zoo.nn.respike import Branches

_DEFAULT_IMAGE_SIZES = {"respike_tiny": 64}


@click.command(
    epilog="""\b
Examples:
  respike train
  respike train --data shards/ucf101-split1 --model respike_r50 --amp bf16
As published:
  respike train --init-backbone imagenet --optimizer momentum --lr 1e-4 --weight-decay 1e-4 --amp fp16
"""
)
@click.option("--data", metavar="DIR", help="Prepared shards.  [default: the only set under shards/]")
@click.option("--model", default="respike_r18", show_default=True, help="respike_r18, respike_r50 or respike_tiny.")
@click.option(
    "--branches",
    type=click.Choice(["hybrid", "ann", "snn", "concat"]),
    default="hybrid",
    show_default=True,
    help="Both branches fused, key frames alone, residuals alone, or both unfused.",
)
@click.option("--epochs", type=int, default=TrainConfig.epochs, show_default=True)
@click.option(
    "--batch-size", type=int, help=f"Clips a step, per process.  [default: {TrainConfig.batch_size}, or all there are]"
)
@click.option("--lr", type=float, default=TrainConfig.learning_rate, show_default=True, help="Highest learning rate.")
@click.option(
    "--optimizer",
    default=TrainConfig.optimizer,
    show_default=True,
    help="timm's name of one: adamw, sgd (Nesterov), momentum (plain SGD with momentum), …",
)
@click.option("--weight-decay", type=float, default=TrainConfig.weight_decay, show_default=True)
@click.option("--image-size", type=int, help="Pixels, a multiple of 32.  [default: 224, for respike_tiny 64]")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror clips at random; not if left matters.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--amp", type=click.Choice(AMPS), default="no", show_default=True, help="Mixed precision.")
@click.option("--workers", type=click.IntRange(min=0), help="Loader processes.  [default: 0 on a CPU, else up to 8]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/MODEL-DATASET, numbered if taken]"
)
@click.option(
    "--init-backbone",
    type=click.Choice(["none", "imagenet"]),
    default="none",
    show_default=True,
    help="Where the ANN branch starts; imagenet fetches weights once.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors and the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    data: str | None,
    model: str,
    branches: "Branches",
    epochs: int,
    batch_size: int | None,
    lr: float,
    optimizer: str,
    weight_decay: float,
    image_size: int | None,
    flip: bool,
    device: str,
    amp: Amp,
    workers: int | None,
    seed: int,
    out: Path | None,
    init_backbone: "BackboneWeights",
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a network on prepared shards.

    A tenth of the training videos, whole sources of them, is held out to choose the best epoch by; the evaluation
    subset stays unseen until `respike score`. The run folder gets best.safetensors and last.safetensors, history.jsonl,
    curves.png and TensorBoard events.

    """
    from respike.cli import render
    from respike.cli.training import TrainRequest, run_training

    config = TrainConfig(
        epochs=epochs,
        batch_size=TrainConfig.batch_size if batch_size is None else batch_size,
        learning_rate=lr,
        optimizer=optimizer,
        weight_decay=weight_decay,
        image_size=image_size or _DEFAULT_IMAGE_SIZES.get(model, TrainConfig.image_size),
        flip=flip,
        amp=amp,
        seed=seed,
        device=device,
    )
    request = TrainRequest(
        data=data,
        model=model,
        branches=branches,
        init_backbone=init_backbone,
        is_batch_size_given=batch_size is not None,
        num_workers=workers,
        out=out,
        config=config,
    )
    outcome = run_training(request, render.make_progress(quiet=quiet, json=as_json))
    if as_json:
        render.print_json(outcome.to_json())
    elif not quiet:
        _report(outcome, data)


def _report(outcome: "TrainOutcome", data: str | None) -> None:
    from respike.cli import render

    result = outcome.result
    best = result.history[result.best_epoch - 1]
    seconds = sum(record.seconds for record in result.history)
    clips = f"{outcome.num_train_clips:,} trained on, {outcome.num_validation_clips:,} held out"
    facts = {"clips": clips, "best epoch": f"{best.epoch} of {len(result.history)}"}
    facts["training"] = f"loss {best.train_loss:.3f}, top-1 {render.format_share(best.train_accuracy)}"
    if best.validation:
        clip, video = (render.format_share(best.validation[name]) for name in ("top1", "video_top1"))
        facts["validation"] = f"top-1 {clip} of clips, {video} of videos"
    facts["time"] = f"{render.format_seconds(seconds)} in training, without validation"
    facts["out"] = f"{result.out}: {result.best.name}, {result.last.name}, history.jsonl, curves.png, tensorboard/"
    render.print_facts(facts)
    where = "" if data is None else f" --data {shlex.quote(data)}"
    render.print_line(f"next: respike score {shlex.quote(str(result.out))}{where}")
