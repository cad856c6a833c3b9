"""Publishing: a checkpoint as a folder with card, config, scores and README, and its upload."""

import json
import shlex
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from respike.common.errors import CheckpointError, MismatchError, RespikeError, SettingError
from respike.common.files import canonical_json, sha256_of_file, write_atomically, write_error
from respike.common.storage import open_address, protocol_of
from respike.common.text import counted
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
from respike.zoo.model_options import ModelOptions
from respike.zoo.models import default_image_size, options_of
from respike.zoo.nn.config import ModelConfig
from respike.zoo.train_config import TrainConfig
from respike.zoo.weights import (
    CARD_NAME,
    EARLIER_SPEC_NAME,
    IN_PACKAGE,
    WEIGHTS_NAME,
    CardScore,
    Counted,
    WeightCard,
    WeightFile,
    check_name,
    read_card,
)

CONFIG_NAME, SCORES_NAME, README_NAME = "config.json", "scores.json", "README.md"
# in the order of writing: a folder that has a card is complete
PUBLISHED_NAMES = (WEIGHTS_NAME, CONFIG_NAME, SCORES_NAME, README_NAME, CARD_NAME)
_METRICS = ("top1", "top5", "mean_class_accuracy")
_COUNTED: tuple[Counted, ...] = get_args(Counted)
_HELD_OUT = "held-out part of train"
# the hub's words for the parts of a data set
_SPLIT_NAMES = {"test": "test", "val": "validation", "train": "train"}
_MAX_REASON_LETTERS = 400


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
    """Write a checkpoint to the folder `out` with all that others need to use it; return its card.

    - `checkpoint`: what `load_checkpoint` takes.
    - `name`: `architecture.tag`, where the architecture is the network's name; `licence`: an SPDX name.
    - `summary`: one line; `notes`: what else a user should know.
    - `command`: what trained it; "" derives a command from the settings in the checkpoint.
    - `scores`: what `respike score --json` printed; `score_command`: the command that printed it.
    - `sources`: the addresses that the folder will have.

    `out` gets model.safetensors, card.json, config.json (the architecture), scores.json and README.md, a model card as
    the Hugging Face hub reads it. Raises SettingError on a name that does not fit or where `out` holds something else,
    MismatchError on scores of other data or of a forced scoring, RespikeError where the file system refuses.
    """
    model, spec = load_checkpoint(checkpoint)
    check_name(name)
    if name.partition(".")[0] != model.config.name:
        raise SettingError(
            f"the name {name!r} does not begin with {model.config.name}",
            f"write {model.config.name}.TAG",
            setting="name",
        )
    command = command or _training_command(model.config, spec)
    card_scores = _validation_scores(spec, command)
    if scores is not None:
        if not score_command:
            raise SettingError("scores without the command that measured them", "name it", setting="score_command")
        card_scores = (*_measured_scores(scores, spec, score_command), *card_scores)
    _make_folder(out, name)
    weights = out / WEIGHTS_NAME
    save_checkpoint(weights, model, spec)
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
        files=(WeightFile(name=weights.name, num_bytes=weights.stat().st_size, sha256=sha256_of_file(weights)),),
        sources=sources,
        scores=card_scores,
        notes=notes,
        respike_version=spec.respike_version,
    )
    write_atomically(out / CONFIG_NAME, canonical_json(_hub_config(card), indent=2))
    write_atomically(out / SCORES_NAME, canonical_json(card.to_json()["scores"], indent=2))
    write_atomically(out / README_NAME, model_card_text(card))
    write_atomically(out / CARD_NAME, card.to_text())
    return card


def _make_folder(out: Path, name: str) -> None:
    """Make `out`. An earlier publication of the same name is overwritten; anything else is refused."""
    if (out / CARD_NAME).is_file():
        if (earlier := read_card(out / CARD_NAME).name) != name:
            raise SettingError(f"{out} holds {earlier}", "choose another folder", setting="out")
        (out / CARD_NAME).unlink()
        (out / EARLIER_SPEC_NAME).unlink(missing_ok=True)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingError(f"{out} is not empty", "choose another folder", setting="out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error


def _measured_scores(scores: Mapping[str, Any], spec: CheckpointSpec, command: str) -> tuple[CardScore, ...]:
    """What `respike score --json` printed, as entries of a card."""
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


def _validation_scores(spec: CheckpointSpec, command: str) -> tuple[CardScore, ...]:
    """What the training measured on the part of train that it held out, as entries of a card."""
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
    """Return the command that trains with the spec's settings; it names those that differ from the defaults."""
    words = ["respike", "train", "--model", config.name, "--branches", config.branches]
    defaults = TrainConfig().to_json() | {"image_size": default_image_size(config.name)}
    default_options = ModelOptions().to_json()
    options = (options_of(config) or ModelOptions()).to_json()
    changed = {name: value for name, value in options.items() if value != default_options[name]}
    changed |= {name: value for name, value in spec.training.items() if name in defaults and value != defaults[name]}
    for name, value in changed.items():
        # TOML writes lists, numbers and truth values as JSON does; it has no null
        text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
        words += ["--set", f"{name}={text}"]
    return shlex.join(words)


def _hub_config(card: WeightCard) -> dict[str, Any]:
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
    """Copy a published folder to `hf://owner/repo` (created if it is missing) or to any address that fsspec writes to.

    The card goes last. Raises SettingError on an address that names no repository, RespikeError that says what the
    other side answered.
    """
    card = read_card(folder / CARD_NAME)
    # earlier versions published the spec as a file of its own
    names = dict.fromkeys([*(file.name for file in card.files), *PUBLISHED_NAMES])
    try:
        if protocol_of(address) == "hf":
            _upload_to_hub(folder, list(names), card.name, address)
        else:
            store, base = open_address(address.rstrip("/"))
            store.makedirs(base, exist_ok=True)
            for name in names:
                store.put_file(str(folder / name), f"{base}/{name}")
    except RespikeError:
        raise
    # the hub, the stores and the HTTP libraries below them raise errors of their own, not all of them OSErrors
    except Exception as error:
        raise RespikeError(
            f"cannot publish {card.name} at {address}: {_reason(error)}",
            f"{_hint(error, address)}; {folder} is complete",
        ) from error


def _upload_to_hub(folder: Path, names: list[str], card_name: str, address: str) -> None:
    repository, _, revision = address.partition("://")[2].rstrip("/").partition("@")
    if repository.count("/") != 1:
        raise SettingError(f"{address!r} names no repository of the hub", "write hf://owner/repo")
    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    if revision:
        api.create_branch(repository, branch=revision, exist_ok=True)
    # one commit, so that nobody sees half of it; `upload_folder` may make several
    api.create_commit(
        repository,
        [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names],
        commit_message=f"Publish {card_name}",
        revision=revision or None,
    )


def _reason(error: BaseException) -> str:
    """What went wrong, on one line. The hub's library writes several, and wraps the error of a file's upload."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:_MAX_REASON_LETTERS] or type(error).__name__


def _hint(error: BaseException, address: str) -> str:
    if protocol_of(address) != "hf":
        return "check the address and its credentials"
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    if response is not None and response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        return "wait that long, then run the same command again"
    if response is not None and response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "run the same command again later"
    return "log in with `hf auth login`, or set HF_TOKEN, to an account that may write there"


def model_card_text(card: WeightCard) -> str:
    """Return the README of a published folder: front matter for the hub, then text for readers."""
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


def _body(card: WeightCard) -> str:
    address = next((source for source in card.sources if source != IN_PACKAGE), "ADDRESS-OF-THIS-FOLDER")
    scores = "\n".join(
        f"| {score.metric} | {score.of} | {score.subset} | {100 * score.value:.2f} % | "
        f"{score.origin}{f' by {score.by}' if score.by else ''} | {f'`{score.command}`' if score.command else ''} |"
        for score in card.scores
    )
    table = f"| metric | of | part | value | origin | command |\n| --- | --- | --- | ---: | --- | --- |\n{scores}\n"
    files = "\n".join(f"{file.sha256}  {file.name}" for file in card.files)
    data = describe_data(card)
    return f"""# {card.name}

{card.summary}
{f"{chr(10)}{card.notes}{chr(10)}" if card.notes else ""}
{card.num_parameters:,} parameters, {card.num_bytes / 1e6:.1f} MB. Data: {data}, {card.image_size} pixels.

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

Data fingerprint: {card.data.fingerprint or "unknown"}. Classes: {", ".join(card.data.classes) or "unknown"}.

## Files

The weights are safetensors: reading them runs no code.

```
{files}
```

Licence: {card.licence}. Written by respike {card.respike_version}.
"""


def zoo_table(cards: Iterable[WeightCard]) -> str:
    """Return a Markdown table with a row for each card."""
    lines = [
        "| name | data | top-1 | parameters | size | licence |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for card in cards:
        size = f"{card.num_bytes / 1e6:.1f} MB" if card.has_weights else "no weights yet"
        parameters = f"{card.num_parameters:,}" if card.num_parameters else "–"
        licence = card.licence if card.has_weights else "–"
        cells = (
            f"`{card.name}`",
            describe_data(card),
            "; ".join(describe_top1(card)) or "–",
            parameters,
            size,
            licence,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def describe_data(card: WeightCard) -> str:
    """Describe a card's data: `ucf101, split 1, stride 4, 101 classes`."""
    split = [] if card.data.split is None else [f"split {card.data.split}"]
    stride = [f"stride {card.data.settings['stride']}"] if "stride" in card.data.settings else []
    return ", ".join([card.data.dataset, *split, *stride, counted(card.num_classes, "class")])


def describe_top1(card: WeightCard) -> list[str]:
    """Describe each top-1 accuracy of a card, see `describe_score`."""
    return [describe_score(score) for score in card.scores if score.metric == "top1"]


def describe_score(score: CardScore) -> str:
    """Describe a score and its origin: `91.2 % of 64 clips (test), measured here`."""
    count = "" if score.count is None else f"{score.count:,} "
    origin = "measured here" if score.origin == "measured here" else f"reported by {score.by}"
    return f"{100 * score.value:.1f} % of {count}{score.of} ({score.subset}), {origin}"
