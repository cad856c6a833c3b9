"""Evaluation: checkpoints and shards that they were not trained on to accuracies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from respike.common.errors import MismatchError, RespikeError, SettingError, ShardError
from respike.common.files import SHARDS_ROOT, find_prepared
from respike.common.progress import SILENCE, Progress
from respike.data.dataset import ShardDataset, open_shards
from respike.data.index import DatasetIndex, read_index, read_skipped
from respike.data.loader import Views, make_loader, parse_views, spread_clips
from respike.data.prepare_config import PrepareConfig
from respike.workflows.inputs import choose_num_workers, find_data, load_model
from respike.zoo.checkpoint import CheckpointSpec
from respike.zoo.compatibility import check_compatible, find_mismatches
from respike.zoo.device import check_amp, resolve_device
from respike.zoo.nn.respike import ReSpike
from respike.zoo.predictions import Predictions, Provenance, describe_device, load_predictions, save_predictions
from respike.zoo.scoring import (
    Scores,
    ScoreSet,
    find_differences,
    find_mean_problem,
    score_predictions,
    summarise_scores,
)
from respike.zoo.scoring import predict as predict_views
from respike.zoo.train_config import Amp


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of one checkpoint and what they were computed from: the classes and the probabilities of each view."""

    title: str
    scores: Scores
    classes: tuple[str, ...]
    predictions: Predictions


def evaluate(
    checkpoint: str | Path,
    data: str | Path | None = None,
    *,
    subset: str | None = None,
    views: Views | str = "all",
    eval_crop: float | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    amp: Amp = "no",
    predictions: Path | None = None,
    force: bool = False,
    progress: Progress = SILENCE,
) -> Scored:
    """Score a checkpoint on shards that it was not trained on. `respike score` calls this.

    - `checkpoint`: as for `load_model`.
    - `data`: a folder or address of shards; by default those under `shards/` that fit the checkpoint.
    - `subset`: `train`, `val` or `test`; by default the one that the data set is scored on.
    - `views`: clips of a video, times 1 or 3 crops of a clip: `all`, `1`, `10x3` or `allx3`.
    - `eval_crop`: side of a crop as a share of the short side; by default that of the validation in training.
    - `batch_size`: clips at a time. `workers`: loader processes, by default 0 on a CPU and up to 8 with an accelerator.
    - `device`: `auto`, `cpu`, `cuda` or `mps`. `amp`: mixed precision, `no`, `bf16` or `fp16`.
    - `predictions`: a file to write the probabilities of each view to; `read_scored` scores it again.
    - `force`: score although checkpoint and data do not fit. The result then says why they do not.

    Raises MismatchError that gives every reason why checkpoint and data do not fit, for example videos that it was
    trained on; CheckpointError or ShardError if one of them is damaged; RespikeError if the shards have too few clips
    of a video for `views`.
    """
    (scored,) = evaluate_all(
        [checkpoint],
        [] if data is None else [data],
        subset=subset,
        views=views,
        eval_crop=eval_crop,
        batch_size=batch_size,
        workers=workers,
        device=device,
        amp=amp,
        predictions=[] if predictions is None else [predictions],
        force=force,
        progress=progress,
    )
    return scored


def evaluate_all(
    checkpoints: Sequence[str | Path],
    data: Sequence[str | Path] = (),
    *,
    subset: str | None = None,
    views: Views | str = "all",
    eval_crop: float | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    amp: Amp = "no",
    predictions: Sequence[Path] = (),
    force: bool = False,
    progress: Progress = SILENCE,
) -> list[Scored]:
    """Score several checkpoints, for example one for each split or seed, as `evaluate` scores one.

    `data` names shards once for all checkpoints or once for each; `predictions` is empty or has one file for each. All
    checkpoints are compared with their data before the first is scored. Raises as `evaluate` does, and MismatchError
    if a mean over these checkpoints would mean nothing.
    """
    if predictions and len(predictions) != len(checkpoints):
        raise SettingError(
            f"files for predictions: {len(predictions)}, checkpoints: {len(checkpoints)}",
            "name one file for each checkpoint",
            setting="predictions",
        )
    views = parse_views(views) if isinstance(views, str) else views
    place = resolve_device(device)
    check_amp(place, amp)
    titles = [str(checkpoint) for checkpoint in checkpoints]
    loaded = [load_model(checkpoint, progress=progress) for checkpoint in checkpoints]
    specs = [spec for _, spec in loaded]
    folders = find_fitting_data([str(each) for each in data], list(zip(titles, specs, strict=True)))
    opened = [
        _open_data(title, model, spec, folder, subset, views, eval_crop, amp, place, progress, force=force)
        for title, (model, spec), folder in zip(titles, loaded, folders, strict=True)
    ]
    if reason := find_mean_problem([provenance for _, provenance in opened]):
        raise MismatchError(reason, "score them one by one")
    results = []
    for number, ((model, spec), (dataset, provenance)) in enumerate(zip(loaded, opened, strict=True)):
        progress.say(f"{titles[number]}: {provenance.subset} of {folders[number]}")
        loader = make_loader(
            dataset,
            batch_size=batch_size,
            training=False,
            image_size=spec.image_size,
            num_workers=choose_num_workers(workers, place.type),
            num_crops=views.crops,
            eval_crop=provenance.eval_crop,
        )
        classes = dataset.spec.classes
        answers = predict_views(model, loader, num_classes=len(classes), device=place, amp=amp, progress=progress)
        # the next network needs the memory
        model.to("cpu")
        if predictions:
            save_predictions(predictions[number], answers, classes, provenance)
        scores = score_predictions(answers, provenance=provenance)
        results.append(Scored(title=titles[number], scores=scores, classes=classes, predictions=answers))
    return results


def read_scored(path: Path) -> Scored:
    """Score the predictions in a file that `evaluate` wrote. Raises RespikeError if `path` holds none."""
    predictions, classes, provenance = load_predictions(path)
    title = str(path) if provenance is None else provenance.checkpoint
    scores = score_predictions(predictions, provenance=provenance)
    return Scored(title=title, scores=scores, classes=classes, predictions=predictions)


def summarise(scored: Sequence[Scored], progress: Progress = SILENCE) -> ScoreSet:
    """Return mean and deviation of the scores of several checkpoints; warn of what differs besides split and seed.

    Raises MismatchError if a mean over them would mean nothing.
    """
    together = summarise_scores([each.scores for each in scored])
    known = [each.scores.provenance for each in scored if each.scores.provenance is not None]
    for difference in find_differences(known):
        progress.warn(f"the mean is over checkpoints that differ: {difference}")
    return together


def find_fitting_data(given: Sequence[str], checkpoints: Sequence[tuple[str, CheckpointSpec]]) -> list[str]:
    """Choose shards for each checkpoint: those `given` (one for all, or one each), or those under `shards/` that fit.

    Raises RespikeError that names the choices if none fits a checkpoint, or more than one.
    """
    if given and len(given) not in (1, len(checkpoints)):
        raise SettingError(
            f"data sets: {len(given)}, checkpoints: {len(checkpoints)}",
            "name one data set for all checkpoints, or one for each",
            setting="data",
        )
    if given:
        return list(given) * (len(checkpoints) if len(given) == 1 else 1)
    found = find_prepared()
    if not found or (len(found) == 1 and len(checkpoints) == 1):
        # if the only one does not fit, the comparison later gives all reasons
        return [find_data(None)]
    return [_match_data(found, name, spec) for name, spec in checkpoints]


def _match_data(found: Sequence[Path], name: str, spec: CheckpointSpec) -> str:
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
            f"name one of them as data, for example {matches[0]}",
        )
    raise MismatchError(
        f"no data set under {SHARDS_ROOT}/ fits {name}: {'; '.join(reasons)}", "name the folder of one as data"
    )


def check_or_force(spec: CheckpointSpec, stored: ShardDataset, progress: Progress, *, force: bool) -> tuple[str, ...]:
    """Compare a checkpoint with its data: raise MismatchError with all reasons, or warn and return them if `force`."""
    videos = [row.video for row in stored.clips]
    if not force:
        check_compatible(spec, stored.spec, videos)
        return ()
    overruled = find_mismatches(spec, stored.spec, videos)
    for reason in overruled:
        progress.warn(reason)
    return overruled


def _open_data(
    title: str,
    model: ReSpike,
    spec: CheckpointSpec,
    data: str,
    subset: str | None,
    views: Views,
    eval_crop: float | None,
    amp: Amp,
    device: torch.device,
    progress: Progress,
    *,
    force: bool,
) -> tuple[ShardDataset, Provenance]:
    """Return the clips to score a checkpoint on, and the provenance of the score. Raises as `evaluate` does."""
    whole = open_shards(data)
    subset = subset or whole.spec.evaluation_subset
    stored = open_shards(data, subset)
    overruled = check_or_force(spec, stored, progress, force=force)
    provenance = Provenance(
        dataset=stored.spec.dataset,
        split=stored.spec.split,
        subset=subset,
        settings=dict(stored.spec.settings),
        fingerprint=stored.spec.fingerprint,
        num_listed=whole.index.num_listed,
        num_skipped=whole.index.num_skipped,
        checkpoint=title,
        weights_sha256=spec.weights_sha256,
        network=model.config.name,
        branches=model.config.branches,
        image_size=spec.image_size,
        epoch=spec.epoch,
        trained_on=spec.data.fingerprint,
        clips_asked=views.clips,
        crops=views.crops,
        device=describe_device(device),
        overruled=overruled,
        missing=_find_missing(stored.index, subset),
        eval_crop=spec.eval_crop if eval_crop is None else eval_crop,
        amp=amp,
    )
    return _choose_clips(stored, data, subset, views, progress), provenance


def _find_missing(index: DatasetIndex, subset: str) -> tuple[str, ...] | None:
    """The listed videos of a subset that are in no shard; None if the shards do not say which subset they are of."""
    skipped = read_skipped(index)
    if skipped is None or any(video.subset is None for video in skipped):
        return None
    return tuple(video.video for video in skipped if video.subset == subset)


def _choose_clips(stored: ShardDataset, data: str, subset: str, views: Views, progress: Progress) -> ShardDataset:
    """Return the clips that `views` ask for.

    Raises RespikeError if they ask for more clips of a video than were prepared; warns if all videos are too short.
    """
    if views.clips is None:
        return stored
    settings = stored.spec.settings
    is_uniform = settings.get("sampling") == "uniform"
    if is_uniform:
        name = "clips_per_video" if subset == "train" else "eval_clips"
        prepared = int(settings.get(name, getattr(PrepareConfig, name)))
        if prepared < views.clips:
            raise RespikeError(
                f"views need {views.clips} clips of a video; {data} was prepared with {prepared} for {subset}",
                f"prepare {stored.spec.dataset} again into another folder with {name} {views.clips}, "
                f"or use views {prepared}x{views.crops}",
            )
    most = max(Counter(row.video for row in stored.clips).values())
    if most < views.clips:
        advice = "" if is_uniform else "; shards prepared with a smaller clip_step have more"
        progress.warn(f"views need {views.clips} clips of a video, the shards hold at most {most}{advice}")
    return spread_clips(stored, views.clips)
