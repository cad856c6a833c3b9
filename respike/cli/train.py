"""`respike train`: shards to a trained network in a run folder."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion, console
from respike.cli.options import OutputFolder, config_options
from respike.common.distributed import process_index, shutdown_process_group
from respike.zoo.recipe import Recipe, merge_settings, parse_assignment
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from respike.workflows.training import TrainOutcome

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
@config_options(Recipe, network={"shell_complete": completion.models})
@config_options(
    TrainConfig,
    epoch_clips={"callback": lambda _, __, text: int(text) if text and text.isdecimal() else text},
    image_size={"help": "Side of the images in pixels, a multiple of 32.  [default: the network's own]"},
)
@click.option(
    "--save-every",
    metavar="N|Nm",
    help=f"Save the state of the training every N updates or minutes.  [default: {TrainConfig.save_every_minutes:g}m]",
)
@click.option("--workers", type=click.IntRange(min=0), help="Loader processes.  [default: 0 on a CPU, else up to 8]")
@click.option(
    "--out", type=OutputFolder(), metavar="DIR", help="Run folder.  [default: runs/MODEL-DATASET, numbered if taken]"
)
@click.option(
    "--init",
    shell_complete=completion.checkpoints,
    metavar="CHECKPOINT",
    help="Start from a trained network: a path, an address or a name from `respike zoo list`.",
)
@click.option("--force", is_flag=True, help="Use --init although it was trained on videos of the evaluation subset.")
@click.option("--resume", is_flag=True, help="Continue the run in --out, or the only unfinished one.")
@click.option("--quiet", is_flag=True, help="Print only warnings and errors.")
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

    The best epoch is chosen on the subset val if the shards have one beside test. Otherwise a tenth of the training
    videos, whole sources of them, is held out for that (--val-share). The evaluation subset stays unseen until
    `respike score`. The run folder gets best.safetensors and last.safetensors, history.jsonl, recipe.toml, curves.png
    and TensorBoard events.

    Ctrl-C, SIGTERM, SIGHUP (a closed terminal) and SIGUSR1 save first. --resume continues from the last save with the
    settings of the run, and ends with the same weights as without the stop; --epochs gives it more epochs. --init
    copies every part of another network that fits, and makes a new head if the classes differ.
    """
    from respike.workflows.training import train

    # with several processes the first one prints
    is_first = process_index() == 0
    given = {name: value for name, value in settings.items() if value is not None}
    config = merge_settings(
        [*map(parse_assignment, assignments), *given.items(), *_parse_save_every(save_every).items()]
    )
    outcome = train(
        data,
        recipe=recipe,
        config=config,
        out=out,
        init=init,
        resume=resume,
        force=force,
        workers=workers,
        progress=console.make_progress(quiet=quiet, json=as_json or not is_first),
    )
    shutdown_process_group()
    if is_first and as_json:
        console.print_json(outcome.to_json())
    elif is_first and not quiet:
        _print(outcome, data)


def _parse_save_every(text: str | None) -> dict[str, Any]:
    """Return the settings that `--save-every` sets: 500 is updates, 5m minutes."""
    if text is None:
        return {}
    match = _SAVE_EVERY.fullmatch(text.strip())
    if match is None or (not match[2] and not match[1].isdigit()):
        raise click.BadParameter(
            f"{text!r} is neither updates, such as 500, nor minutes, such as 5m", param_hint="'--save-every'"
        )
    if not match[2]:
        return {"save_every_updates": int(match[1]), "save_every_minutes": None}
    return {"save_every_minutes": float(match[1]) * (60 if match[2] == "h" else 1)}


def _print(outcome: "TrainOutcome", data: str | None) -> None:
    """Print how a training went, or that it was complete before, and the next command; `data` is the option."""
    best = outcome.history[outcome.best_epoch - 1]
    out, data_option = shlex.quote(str(outcome.out)), "" if data is None else f" --data {shlex.quote(data)}"
    if outcome.was_done:
        top1 = ""
        if "top1" in best.validation:
            top1 = f", top-1 {console.format_share(best.validation['top1'])} {outcome.validated_on}"
        console.print_line(
            f"{outcome.out} is complete: best epoch {best.epoch} of {len(outcome.history)}{top1}, in {outcome.best}; "
            f"next: `respike score {out}{data_option}`, or for more epochs "
            f"`respike train --resume --out {out} --epochs {2 * len(outcome.history)}{data_option}`"
        )
        return
    facts = {"clips": f"{outcome.num_train_clips:,} trained on", "best epoch": "the last: nothing was validated on"}
    if outcome.num_validation_clips:
        facts["clips"] += f", {outcome.num_validation_clips:,} {outcome.validated_on}"
        facts["best epoch"] = f"{best.epoch} of {len(outcome.history)}"
    facts["training"] = f"loss {best.train_loss:.3f}, top-1 {console.format_share(best.train_accuracy)}"
    if best.validation:
        clip, video = (console.format_share(best.validation[name]) for name in ("top1", "video_top1"))
        facts["validation"] = f"top-1 {clip} of clips, {video} of videos"
    seconds = sum(record.seconds for record in outcome.history)
    facts["time"] = f"{console.format_seconds(seconds)} in training, without validation"
    facts["out"] = f"{outcome.out}: {outcome.best.name}, {outcome.last.name}, history.jsonl, curves.png, tensorboard/"
    console.print_facts(facts)
    console.print_line(f"next: respike score {out}{data_option}")
