"""What `respike train` has to report of a run, for people."""

import shlex
from typing import TYPE_CHECKING

from respike.cli import render

if TYPE_CHECKING:
    from respike.cli.training import TrainOutcome


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
    facts["training"] = f"loss {best.train_loss:.3f}, top-1 {render.format_share(best.train_accuracy)}"
    if best.validation:
        clip, video = (render.format_share(best.validation[name]) for name in ("top1", "video_top1"))
        precision = "" if best.amp in (None, "no") else f", computed in {best.amp}: `respike score --amp {best.amp}`"
        facts["validation"] = f"top-1 {clip} of clips, {video} of videos{precision}"
    facts["time"] = f"{render.format_seconds(seconds)} in training, without validation"
    facts["out"] = f"{result.out}: {result.best.name}, {result.last.name}, history.jsonl, curves.png, tensorboard/"
    render.print_facts(facts)
    render.print_line(f"next: respike score {shlex.quote(str(result.out))}{_data_option(data)}")


def _report_done(outcome: "TrainOutcome", data: str | None) -> None:
    result = outcome.result
    best = result.history[result.best_epoch - 1]
    top1 = (
        f", top-1 {render.format_share(best.validation['top1'])} {outcome.validated_on}"
        if "top1" in best.validation
        else ""
    )
    out = shlex.quote(str(result.out))
    render.print_line(
        f"{result.out} is complete: best epoch {best.epoch} of {len(result.history)}{top1}, in {result.best}; next: "
        f"`respike score {out}{_data_option(data)}`, or for more epochs "
        f"`respike train --resume --out {out} --epochs {2 * len(result.history)}{_data_option(data)}`"
    )


def _data_option(data: str | None) -> str:
    return "" if data is None else f" --data {shlex.quote(data)}"
