"""Evaluation workflow: a checkpoint and shards it has not seen to accuracies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from respike.common.errors import MismatchError, RespikeError, ShardError
from respike.common.text import counted
from respike.data.index import SHARDS_ROOT
from respike.workflows.inputs import choose_num_workers, find_data

if TYPE_CHECKING:
    import torch

    from respike.common.progress import Progress
    from respike.data import ShardDataset
    from respike.data.index import DatasetIndex
    from respike.data.loader import Views
    from respike.zoo.checkpoint import CheckpointSpec
    from respike.zoo.nn.respike import ReSpike
    from respike.zoo.predictions import Predictions, Provenance
    from respike.zoo.scoring import Scores
    from respike.zoo.train_config import Amp


def find_fitting_data(given: Sequence[str], checkpoints: Sequence[tuple[str, "CheckpointSpec"]]) -> list[str]:
    """Choose shards for each checkpoint: those `given` (one for all, or one each), else those under `shards/` that fit.

    Raises RespikeError that names the choices where none, or more than one, fits.
    """
    if given and len(given) not in (1, len(checkpoints)):
        raise RespikeError(
            f"{counted(len(given), 'data set')} for {counted(len(checkpoints), 'checkpoint')}",
            "give --data once, or once a checkpoint",
        )
    if given:
        return list(given) * (len(checkpoints) if len(given) == 1 else 1)
    found = sorted(path.parent for path in SHARDS_ROOT.glob("*/dataset.json"))
    if len(found) < 2 and len(checkpoints) == 1:
        # what does not fit is refused with its reasons later
        return [find_data(None)]
    if not found:
        find_data(None)
    return [_match(found, name, spec) for name, spec in checkpoints]


def _match(found: Sequence[Path], name: str, spec: "CheckpointSpec") -> str:
    from respike.data.index import read_index
    from respike.zoo.compatibility import find_mismatches

    same, fitting, reasons = [], [], []
    for path in found:
        try:
            data = read_index(path).spec
        except ShardError as error:
            reasons.append(f"{path.name}: {error.problem}")
            continue
        mismatches = find_mismatches(spec, data, ())
        if data.fingerprint == spec.data.fingerprint:
            same.append(path)
        if mismatches:
            reasons.append(f"{path.name}: {mismatches[0]}")
        else:
            fitting.append(path)
    matches = same or fitting
    if len(matches) == 1:
        return str(matches[0])
    if matches:
        names = ", ".join(each.name for each in matches)
        raise RespikeError(
            f"{SHARDS_ROOT}/ holds {len(matches)} data sets that fit {name}: {names}",
            f"choose one, as with --data {matches[0]}",
        )
    raise MismatchError(f"no data set under {SHARDS_ROOT}/ fits {name}: {'; '.join(reasons)}", "name one with --data")


def check_or_force(
    spec: "CheckpointSpec", stored: "ShardDataset", progress: "Progress", *, force: bool
) -> tuple[str, ...]:
    """Why a checkpoint and its data do not fit: raised as a MismatchError, with `force` warned of and returned."""
    from respike.zoo.compatibility import check_compatible, find_mismatches

    videos = [row.video for row in stored.clips]
    if not force:
        check_compatible(spec, stored.spec, videos)
    overruled = find_mismatches(spec, stored.spec, videos)
    for reason in overruled:
        progress.warn(reason)
    return overruled


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """How to score, beside the checkpoint and its data.

    `subset` None is the one the data set is scored on, `eval_crop` None the share that the training was validated with.
    """

    views: "Views"
    subset: str | None = None
    eval_crop: float | None = None
    amp: "Amp" = "no"
    batch_size: int = 32
    num_workers: int | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One checkpoint's scores, and what they were computed from."""

    title: str
    scores: "Scores"
    classes: tuple[str, ...]
    predictions: "Predictions"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checkpoint and the data to score it on, found to fit or overruled; its provenance says which."""

    model: "ReSpike"
    dataset: "ShardDataset"
    image_size: int
    provenance: "Provenance"


def open_candidate(
    checkpoint: str,
    model: "ReSpike",
    spec: "CheckpointSpec",
    data: str,
    request: ScoreRequest,
    device: "torch.device",
    progress: "Progress",
) -> Candidate:
    """Open the shards that a checkpoint is to be scored on and compare the two.

    Raises MismatchError that gives every reason why they do not fit, unless the request forces it, and RespikeError
    where the shards were prepared with fewer clips of a video than the views ask for.
    """
    from respike.data import open_shards
    from respike.zoo.predictions import Provenance, describe_device

    whole = open_shards(data)
    subset = request.subset or whole.spec.evaluation_subset
    stored = open_shards(data, subset)
    overruled = check_or_force(spec, stored, progress, force=request.force)
    chosen = _choose_clips(stored, data, subset, request.views, progress)
    provenance = Provenance(
        dataset=stored.spec.dataset,
        split=stored.spec.split,
        subset=subset,
        settings=dict(stored.spec.settings),
        fingerprint=stored.spec.fingerprint,
        num_listed=whole.index.num_listed,
        num_skipped=whole.index.num_skipped,
        checkpoint=checkpoint,
        weights_sha256=spec.weights_sha256,
        network=model.config.name,
        branches=model.config.branches,
        image_size=spec.image_size,
        epoch=spec.epoch,
        trained_on=spec.data.fingerprint,
        clips_asked=request.views.clips,
        crops=request.views.crops,
        device=describe_device(device),
        overruled=overruled,
        missing=_find_missing(stored.index, subset),
        eval_crop=spec.eval_crop if request.eval_crop is None else request.eval_crop,
        amp=request.amp,
    )
    return Candidate(model=model, dataset=chosen, image_size=spec.image_size, provenance=provenance)


def _find_missing(index: "DatasetIndex", subset: str) -> tuple[str, ...] | None:
    """The listed videos of a subset that stand in no shard; None where the shards do not say of which they are."""
    from respike.data.index import read_skipped

    skipped = read_skipped(index)
    if skipped is None or any(video.subset is None for video in skipped):
        return None
    return tuple(video.video for video in skipped if video.subset == subset)


def _choose_clips(
    stored: "ShardDataset", data: str, subset: str, views: "Views", progress: "Progress"
) -> "ShardDataset":
    """The clips that `views` ask for.

    Refuses more of a video than the shards were prepared with, and warns where all videos are too short for so many.
    """
    from respike.data.loader import spread_clips

    if views.clips is None:
        return stored
    settings = stored.spec.settings
    if settings.get("sampling") == "uniform":
        name, usual = ("clips_per_video", 4) if subset == "train" else ("eval_clips", 1)
        if (prepared := int(settings.get(name, usual))) < views.clips:
            raise RespikeError(
                f"{views.clips} clips of a video were asked for, {data} was prepared with {prepared} of {subset}",
                f"prepare {stored.spec.dataset} again, as before but with --{name.replace('_', '-')} {views.clips} and "
                f"another --out, or take --views {prepared}x{views.crops}",
            )
    counts = Counter(row.video for row in stored.clips)
    if (most := max(counts.values())) < views.clips:
        more = (
            "" if settings.get("sampling") == "uniform" else "; a smaller --clip-step at `respike prepare` stores more"
        )
        progress.warn(f"{views.clips} clips of a video were asked for, the shards hold {most} at most{more}")
    return spread_clips(stored, views.clips)


def score_candidate(
    candidate: Candidate, request: ScoreRequest, device: "torch.device", progress: "Progress"
) -> Scored:
    """Ask the network for every view, and score what it says."""
    from respike.data import make_loader
    from respike.zoo.scoring import predict, score_predictions

    loader = make_loader(
        candidate.dataset,
        batch_size=request.batch_size,
        training=False,
        image_size=candidate.image_size,
        num_workers=choose_num_workers(request.num_workers, device.type),
        num_crops=request.views.crops,
        eval_crop=candidate.provenance.eval_crop,
    )
    classes = candidate.dataset.spec.classes
    predictions = predict(
        candidate.model, loader, num_classes=len(classes), device=device, amp=request.amp, progress=progress
    )
    return Scored(
        title=candidate.provenance.checkpoint,
        scores=score_predictions(predictions, provenance=candidate.provenance),
        classes=classes,
        predictions=predictions,
    )


def read_scored(path: Path) -> Scored:
    """Score what a network said before. Raises RespikeError where `path` holds no predictions."""
    from respike.zoo.predictions import load_predictions
    from respike.zoo.scoring import score_predictions

    predictions, classes, provenance = load_predictions(path)
    title = str(path) if provenance is None else provenance.checkpoint
    scores = score_predictions(predictions, provenance=provenance)
    return Scored(title=title, scores=scores, classes=classes, predictions=predictions)
