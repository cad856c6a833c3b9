"""Starting: what a training begins with: its data, opened and looked at, and another network's weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from respike.cli.defaults import find_data
from respike.cli.ranks import num_processes
from respike.errors import MismatchError, RespikeError
from respike.wording import counted
from respike.zoo.recipe import Recipe

if TYPE_CHECKING:
    from respike.data import ShardDataset
    from respike.progress import Progress
    from respike.zoo.ablation import FusionVariant
    from respike.zoo.nn.respike import ReSpike


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What was asked for; None is for a default that hangs on what lies on disk.

    `fusion` is how the network fuses where it is not to do so in its own way.
    """

    data: str | None
    recipe: Recipe
    recipe_name: str | None
    is_batch_size_given: bool
    num_workers: int | None
    out: Path | None
    init: str | None
    is_resumed: bool
    fusion: "FusionVariant | None" = None


@dataclass(frozen=True, kw_only=True)
class OpenedData:
    """Shards, their clips to train on and to validate on, and the recipe as it goes with as many clips.

    `validated_on` says what `validation` is: clips `held out`, or those `of val`.
    """

    name: str
    shards: "ShardDataset"
    train_part: "ShardDataset"
    validation: "ShardDataset"
    validated_on: str
    num_epoch_clips: int
    recipe: Recipe


def open_data(request: TrainRequest, progress: "Progress") -> OpenedData:
    """Find and open the data. Raises RespikeError where there is none, several, or nothing to learn from it."""
    from respike.data import open_shards
    from respike.data.batch_order import count_epoch_clips

    name = find_data(request.data)
    shards = open_shards(name)
    train_part, validation, validated_on = _split(name, shards, request.recipe.training.val_share)
    classes = train_part.spec.classes
    if len(classes) < 2:
        raise RespikeError(f"the data has one class, {classes[0]}", "prepare videos of at least two classes")
    num_epoch_clips = count_epoch_clips([row.video for row in train_part.clips], request.recipe.training.epoch_clips)
    recipe = _fit_batch_size(request, num_epoch_clips, progress)
    return OpenedData(
        name=name,
        shards=shards,
        train_part=train_part,
        validation=validation,
        validated_on=validated_on,
        num_epoch_clips=num_epoch_clips,
        recipe=recipe,
    )


def _split(data: str, shards: "ShardDataset", val_share: float) -> tuple["ShardDataset", "ShardDataset", str]:
    """The clips to train on, those to validate on, and what the latter are; `val` where it is there for that."""
    from respike.data import open_shards

    train_part = open_shards(data, "train")
    if val_share > 0 and shards.spec.evaluation_subset != "val" and any(row.subset == "val" for row in shards.clips):
        return train_part, open_shards(data, "val"), "of val"
    return *train_part.hold_out(val_share), "held out"


def _fit_batch_size(request: TrainRequest, num_clips: int, progress: "Progress") -> Recipe:
    """Bring the default batch size, never one that was asked for, down to what there is."""
    recipe, size = request.recipe, request.recipe.training.batch_size
    most = max(1, num_clips // num_processes())
    if request.is_batch_size_given or most >= size:
        return recipe
    progress.say(f"batch size {most} instead of {size}: there are no more clips")
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, batch_size=most))


def start_from(
    init: str, model: "ReSpike", opened: OpenedData, progress: "Progress", *, force: bool
) -> tuple[str, ...]:
    """Load what fits of a trained network; return hashes of the videos it has learned from, which stay learned.

    Raises MismatchError where some of them are to test on, unless `force` makes that a warning.
    """
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.transfer import find_overlap, transfer_weights

    source, spec = load_checkpoint(init, progress=progress)
    shards = opened.shards
    tested = {row.video for row in shards.clips if row.subset == shards.spec.evaluation_subset}
    if known := find_overlap(spec, tested):
        problem = f"{init} has learned from {len(known)} of the {counted(len(tested), 'video')} to test on"
        if not force:
            hint = "choose another split or another checkpoint, or go on with --force"
            raise MismatchError(f"{problem}, the first {known[0]}", hint)
        progress.warn(f"{problem}: scores on them will mislead")
    if known := find_overlap(spec, {row.video for row in opened.validation.clips}):
        progress.warn(f"{init} has learned from {len(known)} of the videos to validate on: that will look too good")
    transfer = transfer_weights(source, spec.data.classes, model, shards.spec.classes)
    progress.say(f"from {init}: {transfer}")
    return spec.train_videos
