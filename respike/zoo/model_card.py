"""Model card: a weight card told to people, on the Hugging Face hub, in docs/zoo.md and by `respike zoo show`."""

from collections.abc import Iterable

from respike.wording import counted
from respike.zoo.cards import IN_PACKAGE, CardScore, WeightCard

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
