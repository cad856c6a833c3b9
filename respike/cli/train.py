"""`respike train`: shards to a trained network in a run folder."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion, console
from respike.cli.options import OutputFolder
from respike.common.distributed import leave_together, process_index
from respike.common.errors import DivergedError, StoppedError
from respike.zoo.model_options import LIF_BACKENDS
from respike.zoo.train_config import AMPS, SCHEDULES, TrainConfig

if TYPE_CHECKING:
    from respike.workflows.training import TrainOutcome, TrainRequest


def report(outcome: "TrainOutcome", data: str | None) -> None:
    """Print how a training went, or that it was complete before, and the next command; `data` is what was given."""
    if outcome.was_done:
        _report_done(outcome, data)
        return
    result = outcome.result
    best = result.history[result.best_epoch - 1]
    seconds = sum(record.seconds for record in result.history)
    clips = f"{outcome.num_train_clips:,} trained on, {outcome.num_validation_clips:,} {outcome.validated_on}"
    facts = {"clips": clips, "best epoch": f"{best.epoch} of {len(result.history)}"}
    if not outcome.num_validation_clips:
        facts = {"clips": f"{outcome.num_train_clips:,} trained on", "best epoch": "the last: nothing was validated on"}
    facts["training"] = f"loss {best.train_loss:.3f}, top-1 {console.format_share(best.train_accuracy)}"
    if best.validation:
        clip, video = (console.format_share(best.validation[name]) for name in ("top1", "video_top1"))
        precision = "" if best.amp in (None, "no") else f", computed in {best.amp}: `respike score --amp {best.amp}`"
        facts["validation"] = f"top-1 {clip} of clips, {video} of videos{precision}"
    facts["time"] = f"{console.format_seconds(seconds)} in training, without validation"
    facts["out"] = f"{result.out}: {result.best.name}, {result.last.name}, history.jsonl, curves.png, tensorboard/"
    console.print_facts(facts)
    console.print_line(f"next: respike score {shlex.quote(str(result.out))}{_data_option(data)}")


def _report_done(outcome: "TrainOutcome", data: str | None) -> None:
    result = outcome.result
    best = result.history[result.best_epoch - 1]
    top1 = (
        f", top-1 {console.format_share(best.validation['top1'])} {outcome.validated_on}"
        if "top1" in best.validation
        else ""
    )
    out = shlex.quote(str(result.out))
    console.print_line(
        f"{result.out} is complete: best epoch {best.epoch} of {len(result.history)}{top1}, in {result.best}; next: "
        f"`respike score {out}{_data_option(data)}`, or for more epochs "
        f"`respike train --resume --out {out} --epochs {2 * len(result.history)}{_data_option(data)}`"
    )


def _data_option(data: str | None) -> str:
    return "" if data is None else f" --data {shlex.quote(data)}"


_SAVE_EVERY = re.compile(r"(\d+(?:\.\d+)?)(m|min|h)?")


@click.command(
    epilog="""\b
Examples:
  respike train
  respike train --data shards/ucf101-split1 --model respike_r50 --amp bf16
  respike train --recipe hmdb51 --data shards/hmdb51-split2 --epochs 50
  respike train --resume --out runs/respike_r50-hmdb51-split2
  respike train --init runs/k400 --data shards/ucf101-split1 --freeze-backbone 2
  torchrun --nproc-per-node 4 -m respike train --recipe kinetics400
"""
)
@click.option(
    "--data",
    shell_complete=completion.data_sets,
    metavar="DIR",
    help="Prepared shards.  [default: the only set under shards/]",
)
@click.option(
    "--recipe",
    shell_complete=completion.recipes,
    metavar="NAME",
    help="Settings to start from; `respike recipes` lists them.",
)
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Any setting of a recipe, by its name.")
@click.option(
    "--model",
    "network",
    shell_complete=completion.models,
    help="respike_r18, _r50, _mobile, _convnext or _tiny.  [default: respike_r18]",
)
@click.option(
    "--branches",
    type=click.Choice(["hybrid", "ann", "snn", "concat"]),
    help="Both branches fused, key frames alone, residuals alone, or both unfused.  [default: hybrid]",
)
@click.option("--epochs", type=int, help=f"[default: {TrainConfig.epochs}]")
@click.option(
    "--epoch-clips",
    metavar="all|K",
    callback=lambda _, __, text: int(text) if text and text.isdecimal() else text,
    help="What an epoch is: all stored clips, or K of each video, drawn anew each epoch.  [default: all]",
)
@click.option(
    "--batch-size", type=int, help=f"Clips a step, per process.  [default: {TrainConfig.batch_size}, or all there are]"
)
@click.option("--accumulate", "accumulation_steps", type=int, help="Batches an update.  [default: 1]")
@click.option("--lr", "learning_rate", type=float, help=f"Highest rate.  [default: {TrainConfig.learning_rate}]")
@click.option(
    "--optimizer",
    help="timm's name of one: adamw, sgd (Nesterov), momentum (plain SGD with momentum), …  [default: adamw]",
)
@click.option("--weight-decay", type=float, help=f"[default: {TrainConfig.weight_decay}]")
@click.option("--schedule", type=click.Choice(SCHEDULES), help="How the rate runs.  [default: cosine]")
@click.option("--warmup", "warmup_share", type=float, help="Share of updates.  [default: 0.05]")
@click.option("--label-smoothing", type=float, help="[default: 0]")
@click.option("--mixup", "mixup_alpha", type=float, metavar="α", help="Blend pairs of clips, λ ~ Beta(α, α).")
@click.option("--clip-grad", "max_grad_norm", type=float, metavar="NORM", help="Clip the gradient's norm.")
@click.option("--ema", "ema_decay", type=float, metavar="DECAY", help="Validate and save a moving average of weights.")
@click.option("--backbone-lr-scale", type=float, help="The backbone's rate, over the rest's.  [default: 1]")
@click.option(
    "--freeze-backbone", "freeze_backbone_epochs", type=int, metavar="EPOCHS", help="Hold the backbone still at first."
)
@click.option("--image-size", type=int, help="Pixels, a multiple of 32.  [default: 224, for respike_tiny 64]")
@click.option("--flip/--no-flip", default=None, help="Mirror clips at random; not if left matters.  [default: flip]")
@click.option(
    "--val-share",
    type=float,
    metavar="SHARE",
    help="Of each class's training sources, held out to validate where there is no val subset; 0: train on everything, "
    "validate on nothing.  [default: 0.1]",
)
@click.option("--device", help="auto, cpu, cuda or mps.  [default: auto]")
@click.option("--amp", type=click.Choice(AMPS), help="Mixed precision.  [default: no]")
@click.option("--compile/--no-compile", default=None, help="Run the network through torch.compile.")
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing", default=None, help="Less memory, more time, same gradients."
)
@click.option("--lif-backend", type=click.Choice(LIF_BACKENDS), help="Who computes the neurons.  [default: torch]")
@click.option("--sync-batchnorm/--no-sync-batchnorm", default=None, help="Norms see all processes' clips (CUDA).")
@click.option(
    "--save-every", metavar="N|Nm", help="Save the training's state every N updates or minutes.  [default: 10m]"
)
@click.option("--workers", type=click.IntRange(min=0), help="Loader processes.  [default: 0 on a CPU, else up to 8]")
@click.option("--seed", type=int, help="[default: 0]")
@click.option(
    "--out", type=OutputFolder(), metavar="DIR", help="Run folder.  [default: runs/MODEL-DATASET, numbered if taken]"
)
@click.option(
    "--init-backbone",
    type=click.Choice(["none", "imagenet"]),
    help="Where the ANN branch starts; imagenet fetches weights once.  [default: none]",
)
@click.option(
    "--init",
    shell_complete=completion.checkpoints,
    metavar="CHECKPOINT",
    help="Start from a trained network, a path or a name of the zoo; see below.",
)
@click.option("--force", is_flag=True, help="Use --init though it has learned from videos that are to test on.")
@click.option(
    "--resume", is_flag=True, help="Go on with the run in --out (--epochs: to more), or the only one not done."
)
@click.option("--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    data: str | None,
    recipe: str | None,
    assignments: tuple[str, ...],
    save_every: str | None,
    workers: int | None,
    out: Path | None,
    init: str | None,
    force: bool,
    resume: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a network on prepared shards.

    The best epoch is chosen on the subset val, where the shards have one beside test; else a tenth of the training
    videos, whole sources of them, is held out for that (--val-share). The evaluation subset stays unseen until
    `respike score`. The run folder gets best.safetensors and last.safetensors, history.jsonl, recipe.toml, curves.png
    and TensorBoard events.

    SIGTERM and Ctrl-C save first. --resume goes on from the last save, with the settings that the run was begun with,
    to the weights it would have had. --init takes from another network every part that fits, a new head where the
    classes differ.
    """
    from respike.cli import console
    from respike.workflows.training import run_training

    # one process tells what all do
    is_first = process_index() == 0
    progress = console.make_progress(quiet=quiet, json=as_json or not is_first)
    given = {name: value for name, value in settings.items() if value is not None} | _saving(save_every)
    request = _make_request(data, recipe, given, assignments, workers=workers, out=out, init=init, is_resumed=resume)
    try:
        outcome = run_training(request, progress, force=force)
    except (StoppedError, DivergedError):
        leave_together()
        raise
    if outcome is None:
        click.get_current_context().exit(1)
    leave_together()
    if not is_first:
        return
    if as_json:
        console.print_json(outcome.to_json())
    elif not quiet:
        report(outcome, data)


# --set takes an option's name, too: `--set lr=0.01` is what those try who know --lr
_SHORT_NAMES = {
    option.removeprefix("--").replace("-", "_"): str(parameter.name)
    for parameter in command.params
    for option in parameter.opts
    if parameter.name in ("network", *TrainConfig.__dataclass_fields__)
}


def _make_request(
    data: str | None,
    recipe: str | None,
    given: dict[str, Any],
    assignments: tuple[str, ...],
    *,
    workers: int | None,
    out: Path | None,
    init: str | None,
    is_resumed: bool,
) -> "TrainRequest":
    from respike.workflows.training import TrainRequest
    from respike.zoo.recipe import Recipe, parse_assignment, read_recipe
    from respike.zoo.run_request import find_run_request, read_run_request

    assigned = map(parse_assignment, assignments)
    values = {_SHORT_NAMES.get(name, name): value for name, value in assigned} | given
    begun = None
    if is_resumed:
        out = out or find_run_request()
        begun = read_run_request(out, recipe)
    base = begun.recipe if begun is not None else Recipe() if recipe is None else read_recipe(recipe)
    return TrainRequest(
        data=data or (begun.data if begun else None),
        recipe=base.override(values),
        recipe_name=recipe,
        is_batch_size_given="batch_size" in values or begun is not None,
        num_workers=workers,
        out=out,
        init=init or (begun.init if begun else None),
        is_resumed=is_resumed,
    )


def _saving(every: str | None) -> dict[str, Any]:
    """The settings that `--save-every` stands for: 500 is updates, 5m minutes."""
    if every is None:
        return {}
    match = _SAVE_EVERY.fullmatch(every.strip())
    if match is None or (not match[2] and not match[1].isdigit()):
        raise click.BadParameter(
            f"{every!r} is neither updates, such as 500, nor minutes, such as 5m", param_hint="'--save-every'"
        )
    if not match[2]:
        return {"save_every_updates": int(match[1]), "save_every_minutes": "none"}
    return {"save_every_minutes": float(match[1]) * (60 if match[2] == "h" else 1)}
