"""Publishing: a checkpoint as a folder with card, config, scores and README, and its upload."""

import json
import shlex
import shutil
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from respike.common.config import to_plain
from respike.common.errors import CheckpointError, MismatchError, RespikeError, SettingError
from respike.common.files import canonical_json, sha256_of_file, write_atomically, write_error
from respike.common.storage import open_address, protocol_of
from respike.common.text import counted
from respike.zoo.checkpoint import CheckpointSpec, find_weights, load_checkpoint
from respike.zoo.model_options import ModelOptions
from respike.zoo.models import options_of
from respike.zoo.nn.config import ModelConfig
from respike.zoo.nn.respike import ReSpike
from respike.zoo.train_config import TrainConfig
from respike.zoo.weights import (
    CARD_NAME,
    IN_PACKAGE,
    SPEC_NAME,
    WEIGHTS_NAME,
    CardScore,
    Counted,
    WeightCard,
    WeightFile,
    check_name,
    read_card,
    resolve_weights,
)

_SPLIT_NAMES = {"test": "test", "val": "validation", "train": "train"}


def model_card_text(card: WeightCard) -> str:
    """The README of a published folder: the front matter that the hub reads, then what a reader wants to know."""
    # imported late: only who publishes needs it
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="video-classification",
            dataset_type=card.data.dataset,
            dataset_name=card.data.dataset,
            dataset_split=_SPLIT_NAMES.get(score.subset),
            metric_type="accuracy",
            metric_name=f"{score.metric} of {score.of}, {score.subset}",
            metric_value=score.value,
        )
        for score in card.scores
    ]
    data = ModelCardData(
        license=card.licence.lower(),
        library_name="respike",
        pipeline_tag="video-classification",
        tags=["spiking-neural-network", "video-classification", "action-recognition", card.architecture],
        model_name=card.name,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(card)}"


def zoo_table(cards: Iterable[WeightCard]) -> str:
    """The cards as a Markdown table, one a row."""
    lines = [
        "| name | data | top-1 | parameters | size | licence |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for card in cards:
        size = f"{card.num_bytes / 1e6:.1f} MB" if card.has_weights else "no weights yet"
        parameters = f"{card.num_parameters:,}" if card.num_parameters else "–"
        licence = card.licence if card.has_weights else "–"
        cells = (f"`{card.name}`", data_told(card), "; ".join(top1_told(card)) or "–", parameters, size, licence)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def top1_told(card: WeightCard) -> list[str]:
    """A card's top-1 accuracies, each with where it is from."""
    return [score_told(score) for score in card.scores if score.metric == "top1"]


def score_told(score: CardScore) -> str:
    """`91.2 % of 64 clips (test), measured here`."""
    count = "" if score.count is None else f"{score.count:,} "
    origin = "measured here" if score.origin == "measured here" else f"reported by {score.by}"
    return f"{100 * score.value:.1f} % of {count}{score.of} ({score.subset}), {origin}"


def data_told(card: WeightCard) -> str:
    """`ucf101, split 1, stride 4, 101 classes`."""
    split = [] if card.data.split is None else [f"split {card.data.split}"]
    stride = [f"stride {card.data.settings['stride']}"] if "stride" in card.data.settings else []
    return ", ".join([card.data.dataset, *split, *stride, counted(card.num_classes, "class")])


def _body(card: WeightCard) -> str:
    address = next((source for source in card.sources if source != IN_PACKAGE), "ADDRESS-OF-THIS-FOLDER")
    scores = "\n".join(
        f"| {score.metric} | {score.of} | {score.subset} | {100 * score.value:.2f} % | "
        f"{score.origin}{f' by {score.by}' if score.by else ''} | {f'`{score.command}`' if score.command else ''} |"
        for score in card.scores
    )
    table = f"| metric | of | part | value | origin | command |\n| --- | --- | --- | ---: | --- | --- |\n{scores}\n"
    files = "\n".join(f"{file.sha256}  {file.name}" for file in card.files)
    classes = ", ".join(card.data.classes) or "not told"
    return f"""# {card.name}

{card.summary}
{f"{chr(10)}{card.notes}{chr(10)}" if card.notes else ""}
{card.num_parameters:,} parameters, {card.num_bytes / 1e6:.1f} MB. Data: {data_told(card)}, {card.image_size} pixels.

```bash
respike zoo download {address}
```

```python
from respike.zoo import create_model

model = create_model("{card.architecture}", pretrained="{address}").eval()
```

## Scores

{table if scores else f"None were measured.{chr(10)}"}
## Training

```bash
{card.command}
```

Data fingerprint {card.data.fingerprint or "not told"}. Classes: {classes}.

## Files

The weights are safetensors: reading them runs no code.

```
{files}
```

Licence: {card.licence}. Written by respike {card.respike_version}.
"""


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


def upload(folder: Path, address: str) -> None:
    """Copy a published folder to `hf://owner/repo` (made if it is not there) or to any address that fsspec writes to.

    The card goes last. Raises RespikeError that says what the other side answered.
    """
    card = read_card(folder / CARD_NAME)
    try:
        if protocol_of(address) == "hf":
            _upload_to_hub(folder, card, address)
        else:
            _upload_to_store(folder, address)
    except RespikeError:
        raise
    # the hub, each store and the HTTP libraries below them raise errors of their own, not all of them OSErrors
    except Exception as error:
        raise RespikeError(
            f"cannot publish {card.name} at {address}: {_reason(error)}", f"{_hint(error, address)}; {folder} is whole"
        ) from error


def _upload_to_hub(folder: Path, card: WeightCard, address: str) -> None:
    repository, _, revision = address.partition("://")[2].rstrip("/").partition("@")
    if repository.count("/") != 1:
        raise SettingError(f"{address!r} names no repository of the hub", "write hf://owner/repo")
    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    if revision:
        api.create_branch(repository, branch=revision, exist_ok=True)
    # one commit, so that nobody sees half of it; `upload_folder` makes several where it sees fit
    api.create_commit(
        repository,
        [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in PUBLISHED_NAMES],
        commit_message=f"Publish {card.name}",
        revision=revision or None,
    )


def _upload_to_store(folder: Path, address: str) -> None:
    store, base = open_address(address.rstrip("/"))
    store.makedirs(base, exist_ok=True)
    for name in PUBLISHED_NAMES:
        store.put_file(str(folder / name), f"{base}/{name}")


def _reason(error: BaseException) -> str:
    """What went wrong on one line; the hub's library writes several, and wraps what failed while a file was sent."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:400] or type(error).__name__


def _hint(error: BaseException, address: str) -> str:
    if protocol_of(address) != "hf":
        return "check the address and its credentials"
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    if response is not None and response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        return "wait that long, then run the same command again"
    if response is not None and response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "run the same command again later"
    return "log in with `hf auth login`, or set HF_TOKEN, to an account that may write there"
