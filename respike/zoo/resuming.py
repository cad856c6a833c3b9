"""Resuming: from what a run folder holds to the state that a training goes on from.

A run that was saved on its way goes on with all it had. One that was done has kept its weights alone (the average,
where there is one): where it is to have more epochs, the optimizer begins anew. With more epochs the learning rate is
from there on where a schedule over all of them would be by then; after one that has fallen to nothing it rises again.
"""

import torch

from respike.errors import MismatchError
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.history import read_history
from respike.zoo.run_folder import LAST_NAME
from respike.zoo.snapshot import restore_snapshot
from respike.zoo.snapshot_folder import read_snapshot
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_run import TrainRun
from respike.zoo.train_state import TrainState


def restore(state: TrainState, run: TrainRun) -> bool:
    """Bring `state` to where the run stands; True where that was its end, from which it now goes on."""
    path = run.on_folder(lambda folder: folder.find_snapshot(run.progress))
    if path is None and run.on_folder(lambda folder: folder.is_finished()):
        _extend_finished(state, run)
        return True
    if path is None:
        run.progress.say(f"nothing was saved in {run.out}: training begins anew")
        return False
    snapshot = read_snapshot(path)
    restore_snapshot(snapshot, state, run.train, run.config, run.data)
    # older snapshots do not say
    if (version := snapshot.facts.get("torch_version")) not in (None, torch.__version__):
        run.progress.warn(
            f"saved with torch {version}, this is {torch.__version__}: the last digits may come out otherwise"
        )
    run.progress.say(f"going on in epoch {state.epoch} of {run.config.epochs}, after update {state.num_updates:,}")
    if (before := snapshot.facts["config"]["epochs"]) != run.config.epochs:
        run.progress.say(_describe_extension(state, run.config, before))
    return False


def _extend_finished(state: TrainState, run: TrainRun) -> None:
    """Bring `state`, as it was begun, to the end of the run that is done in `run.out`; every process calls this.

    Raises MismatchError where that is of another network.
    """
    model, spec = load_checkpoint(run.out / LAST_NAME)
    if model.config != state.model.config:
        raise MismatchError(
            f"the run {run.out} is of another network, {model.config.name} with branches {model.config.branches}",
            "resume it as it was begun, or train anew into another folder",
        )
    for kept in (state.model, state.saved_model):
        kept.load_state_dict(model.state_dict())
    state.history = list(read_history(run.out))
    state.epoch, state.step = spec.epoch, len(run.train)
    state.num_updates = spec.epoch * -(-len(run.train) // run.config.accumulation_steps)
    best = max(state.history, key=lambda record: record.rank(run.config.best_metric))
    state.best_epoch, state.best_rank = best.epoch, best.rank(run.config.best_metric)
    state.seen_videos |= set(spec.train_videos)
    state.scheduler.step_update(state.num_updates)
    told = _describe_extension(state, run.config, spec.training["epochs"])
    run.progress.say(f"{told}; the optimizer begins anew")


def _describe_extension(state: TrainState, config: TrainConfig, before: int) -> str:
    """What becomes of the schedule of a run that was begun with `before` epochs."""
    return (
        f"{config.epochs} epochs instead of {before}: the learning rate goes on at {state.learning_rate:.3g}, "
        f"where a {config.schedule} schedule of {config.epochs} epochs is by now"
    )
