"""Publish: a checkpoint as a folder that stands for itself: weights, card, config, scores, README; and its upload."""

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import fsspec
from huggingface_hub import HfApi

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
from respike.zoo.nn.config import ModelConfig
from respike.zoo.train_config import TrainConfig

CONFIG_NAME, SCORES_NAME, README_NAME = "config.json", "scores.json", "README.md"
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
    try:
        shutil.copyfile(weights, out / WEIGHTS_NAME)
        shutil.copyfile(weights.with_suffix(".json"), out / SPEC_NAME)
    except OSError as error:
        raise write_error(out, error) from error
    load_checkpoint(out / WEIGHTS_NAME)  # a copy cut by a full disk must not be published
    card = WeightCard(
        name=name,
        summary=summary or f"{model.config.name}, trained on {spec.data.dataset}",
        image_size=spec.image_size,
        data=spec.data,
        num_classes=model.config.num_classes,
        command=command,
        licence=licence,
        model=model.config.to_json(),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        training=dict(spec.training),
        files=tuple(_describe_file(out / each) for each in (WEIGHTS_NAME, SPEC_NAME)),
        sources=sources,
        scores=listed,
        notes=notes,
        respike_version=spec.respike_version,
    )
    write_atomically(out / CONFIG_NAME, canonical_json(_config(card), indent=2))
    write_atomically(out / SCORES_NAME, canonical_json(card.to_json()["scores"], indent=2))
    write_atomically(out / README_NAME, model_card_text(card))
    # the card last: a folder that has one is whole
    write_atomically(out / CARD_NAME, card.to_text())
    return card


def upload(folder: Path, address: str) -> None:
    """Copy a published folder to `hf://owner/repo` (made if it is not there) or to any address that fsspec writes to.

    The card goes last. Raises RespikeError that says what the other side answered.
    """
    card = read_card(folder / CARD_NAME)
    try:
        if address.startswith("hf://"):
            _upload_to_hub(folder, card, address)
        else:
            _upload_to_store(folder, address)
    except RespikeError:
        raise
    # the hub, each store and the HTTP libraries below them raise errors of their own, not all of them OSErrors
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "log in with `hf auth login`" if address.startswith("hf://") else "check the address and its credentials"
        raise RespikeError(
            f"cannot publish {card.name} at {address}: {reason}", f"{hint}; {folder} is whole"
        ) from error


def _upload_to_hub(folder: Path, card: WeightCard, address: str) -> None:
    repository, _, revision = address.removeprefix("hf://").rstrip("/").partition("@")
    if repository.count("/") != 1:
        raise SettingError(f"{address!r} names no repository of the hub", "write hf://owner/repo")
    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    # one commit, so that nobody sees half of it
    api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        allow_patterns=[path.name for path in _files(folder)],
        revision=revision or None,
        commit_message=f"Publish {card.name}",
    )


def _upload_to_store(folder: Path, address: str) -> None:
    store, base = fsspec.core.url_to_fs(address.rstrip("/"))
    store.makedirs(base, exist_ok=True)
    for path in _files(folder):
        store.put_file(str(path), f"{base}/{path.name}")


def _files(folder: Path) -> list[Path]:
    """The files of a published folder, the card last."""
    names = (WEIGHTS_NAME, SPEC_NAME, CONFIG_NAME, SCORES_NAME, README_NAME, CARD_NAME)
    return [folder / name for name in names]


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
