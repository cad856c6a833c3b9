"""Publish: a checkpoint as a folder that stands for itself: weights, card, config, scores, README."""

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from respike.errors import CheckpointError, MismatchError, RespikeError, SettingError
from respike.files import canonical_json, sha256_of_file, write_atomically, write_error
from respike.zoo.cards import (
    CARD_NAME,
    SPEC_NAME,
    WEIGHTS_NAME,
    CardScore,
    Counted,
    WeightCard,
    WeightFile,
    check_name,
    read_card,
)
from respike.zoo.catalog import resolve_weights
from respike.zoo.checkpoint import CheckpointSpec, find_weights, load_checkpoint
from respike.zoo.model_card import model_card_text
from respike.zoo.model_options import ModelOptions
from respike.zoo.models import options_of
from respike.zoo.nn.config import ModelConfig
from respike.zoo.nn.respike import ReSpike
from respike.zoo.plain import to_plain
from respike.zoo.train_config import TrainConfig

CONFIG_NAME, SCORES_NAME, README_NAME = "config.json", "scores.json", "README.md"
# in the order in which they are copied: a folder that has a card is whole
PUBLISHED_NAMES = (WEIGHTS_NAME, SPEC_NAME, CONFIG_NAME, SCORES_NAME, README_NAME, CARD_NAME)
_METRICS = ("top1", "top5", "mean_class_accuracy")
_COUNTED: tuple[Counted, ...] = get_args(Counted)
_HELD_OUT = "held-out part of train"


def publish(
    checkpoint: str | Path,
    out: Path,
    *,
    name: str,
    licence: str,
    command: str = "",
    summary: str = "",
    notes: str = "",
    scores: Mapping[str, Any] | None = None,
    score_command: str = "",
    sources: tuple[str, ...] = (),
) -> WeightCard:
    """Write the folder `out` for a checkpoint and return its card.

    - `name`: `arch.tag`, where `arch` is the network's name; `licence`: an SPDX name; `summary`: one line.
    - `command`: what trained it, "" to tell it from the spec.
    - `scores`: what `respike score --json` printed, `score_command` the command that did.
    - `sources`: addresses at which the folder will lie.

    `out` holds model.safetensors, model.json (the spec), card.json, config.json (the architecture), scores.json and
    README.md, a model card as the Hugging Face hub reads it. Raises SettingError on a name that does not fit,
    MismatchError on scores of other data or of a forced scoring, RespikeError where `out` holds something else.
    """
    weights = find_weights(resolve_weights(checkpoint))
    model, spec = load_checkpoint(weights)
    check_name(name)
    if name.partition(".")[0] != model.config.name:
        raise SettingError(f"the name {name!r} is not one of a {model.config.name}", f"write {model.config.name}.TAG")
    command = command or _training_command(model.config, spec)
    listed = _own_scores(spec, command)
    if scores is not None:
        if not score_command:
            raise SettingError("scores without the command that measured them", "name it")
        listed = (*_measured(scores, spec, score_command), *listed)
    _make_folder(out, name)
    _copy(weights, out)
    about = {"command": command, "licence": licence, "notes": notes}
    about["summary"] = summary or f"{model.config.name}, trained on {spec.data.dataset}"
    card = _make_card(out, name, model, spec, listed, sources, about)
    write_atomically(out / CONFIG_NAME, canonical_json(_config(card), indent=2))
    write_atomically(out / SCORES_NAME, canonical_json(card.to_json()["scores"], indent=2))
    write_atomically(out / README_NAME, model_card_text(card))
    # the card last: a folder that has one is whole
    write_atomically(out / CARD_NAME, card.to_text())
    return card


def _copy(weights: Path, out: Path) -> None:
    try:
        shutil.copyfile(weights, out / WEIGHTS_NAME)
        shutil.copyfile(weights.with_suffix(".json"), out / SPEC_NAME)
    except OSError as error:
        raise write_error(out, error) from error
    load_checkpoint(out / WEIGHTS_NAME)  # a copy cut by a full disk must not be published


def _make_card(
    out: Path,
    name: str,
    model: ReSpike,
    spec: CheckpointSpec,
    scores: tuple[CardScore, ...],
    sources: tuple[str, ...],
    about: Mapping[str, str],
) -> WeightCard:
    return WeightCard(
        name=name,
        summary=about["summary"],
        image_size=spec.image_size,
        data=spec.data,
        num_classes=model.config.num_classes,
        command=about["command"],
        licence=about["licence"],
        model=model.config.to_json(),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        training=dict(spec.training),
        files=tuple(_describe_file(out / each) for each in (WEIGHTS_NAME, SPEC_NAME)),
        sources=sources,
        scores=scores,
        notes=about["notes"],
        respike_version=spec.respike_version,
    )


def _make_folder(out: Path, name: str) -> None:
    """Make `out`; an earlier publication of that name is written over, anything else is left alone."""
    if (out / CARD_NAME).is_file():
        if (earlier := read_card(out / CARD_NAME).name) != name:
            raise RespikeError(f"{out} holds {earlier}", "name another --out")
        (out / CARD_NAME).unlink()
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RespikeError(f"{out} is not empty", "name another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error


def _measured(scores: Mapping[str, Any], spec: CheckpointSpec, command: str) -> tuple[CardScore, ...]:
    """What `respike score --json` printed, as a card has it."""
    try:
        if scores["forced"]:
            raise MismatchError("the scores are of a scoring that was forced", "score on data that fits")
        if scores["fingerprint"] != spec.data.fingerprint:
            raise MismatchError(
                f"the scores are of other data: fingerprint {str(scores['fingerprint'])[:12]}…, "
                f"the network's is {spec.data.fingerprint[:12]}…",
                "score the checkpoint on the data set it was trained on",
            )
        return tuple(
            CardScore(
                metric=metric,
                value=float(scores[key][metric]),
                of=of,
                subset=spec.data.evaluation_subset,
                origin="measured here",
                count=int(scores[f"num_{of}"]),
                command=command,
            )
            for key, of in zip(("clip", "video"), _COUNTED, strict=True)
            for metric in _METRICS
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the scores lack {error}", "give what `respike score --json` printed") from error


def _own_scores(spec: CheckpointSpec, command: str) -> tuple[CardScore, ...]:
    """What validation said while it was trained."""
    return tuple(
        CardScore(
            metric=metric,
            value=spec.scores[f"{prefix}{metric}"],
            of=of,
            subset=_HELD_OUT,
            origin="measured here",
            command=command,
        )
        for prefix, of in zip(("", "video_"), _COUNTED, strict=True)
        for metric in _METRICS
        if f"{prefix}{metric}" in spec.scores
    )


def _training_command(config: ModelConfig, spec: CheckpointSpec) -> str:
    """The command that would train with the spec's settings, those named that are not the defaults."""
    usual = TrainConfig().to_json()
    words = ["respike", "train", "--model", config.name, "--branches", config.branches]
    own, usual_options = to_plain(options_of(config) or ModelOptions()), to_plain(ModelOptions())
    for name, value in own.items():
        if value != usual_options[name]:
            words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for name, value in spec.training.items():
        if name in usual and value != usual[name]:
            # a JSON list, number or truth value is written the same in TOML
            text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
            words += ["--set", f"{name}={text}"]
    return shlex.join(words)


def _describe_file(path: Path) -> WeightFile:
    return WeightFile(name=path.name, num_bytes=path.stat().st_size, sha256=sha256_of_file(path))


def _config(card: WeightCard) -> dict[str, Any]:
    """The architecture, as the hub looks for it in a repository's config.json."""
    return {
        "library_name": "respike",
        "architecture": card.architecture,
        "num_classes": card.num_classes,
        "label_names": list(card.data.classes),
        "image_size": card.image_size,
        "model": dict(card.model),
    }
