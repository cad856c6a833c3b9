"""`respike zoo`: weights listed, shown, downloaded, verified, published and imported."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli import console
from respike.cli.completion import cards, checkpoints, data_sets
from respike.cli.options import OutputFolder

if TYPE_CHECKING:
    from respike.zoo.published_code import ClassOrder
    from respike.zoo.weights import WeightCard, WeightsStatus

_offline = click.option("--offline", is_flag=True, help="Download nothing; the same as setting RESPIKE_OFFLINE.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_quiet = click.option("--quiet", is_flag=True, help="Print only errors and the result.")


@click.group(
    epilog="""\b
Examples:
  respike zoo list
  respike zoo download
  respike score respike_tiny.demo16 --data demo/shards
  respike zoo publish runs/mine --name respike_r18.ucf101 --licence Apache-2.0 --to hf://owner/repo
"""
)
def command() -> None:
    """List, show, download, verify, publish and import weights by name.

    Wherever a command needs a checkpoint, it takes a name from this list or the address of a published folder. A
    folder named in RESPIKE_ZOO_MIRROR is used before the sources of a card. Downloaded weights are kept in
    RESPIKE_CACHE.
    """


@command.command("list")
@click.option("--markdown", is_flag=True, help="Print the table of docs/zoo.md.")
@_json
def list_weights(markdown: bool, as_json: bool) -> None:
    """List the weights, and the recipes without weights."""
    from respike.zoo.publishing import describe_data, describe_top1, zoo_table
    from respike.zoo.weights import look, read_cards

    cards = list(read_cards().values())
    if markdown:
        for line in zoo_table(cards).splitlines():
            console.print_line(line)
        return
    findings = [look(card) for card in cards]
    if as_json:
        rows = zip(cards, findings, strict=True)
        console.print_json([{**card.to_json(), "state": finding.state} for card, finding in rows])
        return
    table = [
        (card.name, describe_data(card), next(iter(describe_top1(card)), "–"), _size(card), finding.state)
        for card, finding in zip(cards, findings, strict=True)
    ]
    console.print_table(("name", "data", "top-1", "size", "state"), table)


@command.command()
@click.argument("name", shell_complete=cards)
@_offline
@_json
def show(name: str, offline: bool, as_json: bool) -> None:
    """Show the card of NAME, or of the published folder at an address."""
    from respike.zoo.publishing import describe_data, describe_score
    from respike.zoo.weights import look

    card = _card(name, offline=offline)
    finding = look(card)
    if as_json:
        console.print_json({**card.to_json(), "state": finding.state, "folder": _text(finding.folder)})
        return
    facts: dict[str, object] = {"state": finding.state, "size": _size(card)}
    facts |= {"parameters": f"{card.num_parameters:,}"} if card.num_parameters else {}
    facts |= {"data": describe_data(card), "pixels": card.image_size, "trained by": card.command}
    facts |= {"fingerprint": card.data.fingerprint} if card.data.fingerprint else {}
    for score in card.scores:
        facts[score.metric if score.metric not in facts else f"{score.metric}, {score.of}"] = describe_score(score)
    commands = sorted({score.command for score in card.scores if score.command})
    facts |= {"scored by": "; ".join(commands)} if commands else {}
    facts |= {f"SHA-256 of {file.name}": file.sha256 for file in card.files}
    facts |= {"sources": ", ".join(card.sources)} if card.sources else {}
    facts |= {"licence": card.licence} | ({"notes": card.notes} if card.notes else {})
    facts |= {"classes": ", ".join(card.data.classes)} if card.data.classes else {}
    console.print_facts(facts, title=f"{card.name}: {card.summary}")


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=cards)
@_offline
@_quiet
@_json
def download(names: tuple[str, ...], offline: bool, quiet: bool, as_json: bool) -> None:
    """Download weights by NAME or address and check their SHA-256; without a NAME, the default weights."""
    from respike.zoo.weights import DEFAULT_NAME
    from respike.zoo.weights import download as download_weights

    progress = console.make_progress(quiet=quiet, json=as_json)
    paths = {}
    for name in names or (DEFAULT_NAME,):
        card = _card(name, offline=offline)
        paths[name] = str(download_weights(card, offline=offline or None, progress=progress))
    if as_json:
        console.print_json(paths)
        return
    for path in paths.values():
        console.print_line(path)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=cards)
@_json
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check every byte of the weights on this machine, all or those NAMEd; exit 1 if any are damaged.

    Without a NAME these are the weights that come with respike and all that were downloaded.
    """
    from respike.zoo.checkpoint import verify_fetched, verify_weights
    from respike.zoo.weights import read_cards

    cards = [_card(name, offline=True) for name in names] or list(read_cards().values())
    findings = [verify_weights(card) for card in cards] + ([] if names else verify_fetched())
    if as_json:
        console.print_json([_finding_json(finding) for finding in findings])
    else:
        console.print_table(("name", "state", ""), [(each.name, each.state, each.problem) for each in findings])
    if any(finding.state == "damaged" for finding in findings):
        click.get_current_context().exit(1)


@command.command()
@click.argument("checkpoint", shell_complete=checkpoints)
@click.option(
    "--name", required=True, metavar="ARCH.TAG", help="The name of the network, a dot, and a tag of your choice."
)
@click.option("--licence", required=True, help="An SPDX name, such as Apache-2.0 or CC-BY-4.0.")
@click.option(
    "--command",
    "trained_by",
    metavar="TEXT",
    default="",
    help="Command that trained it.  [default: made of its settings]",
)
@click.option("--summary", default="", help="One line on what it is.")
@click.option("--notes", default="", help="What a user should know.")
@click.option("--scores", type=click.Path(path_type=Path), metavar="FILE", help="What `respike score --json` printed.")
@click.option("--score-command", metavar="TEXT", help="Command that printed it.  [default: respike score NAME]")
@click.option("--out", type=OutputFolder(), metavar="DIR", help="The folder to write.  [default: published/NAME]")
@click.option("--to", "address", metavar="ADDRESS", help="Upload it: hf://owner/repo, s3://bucket/folder, …")
@_json
def publish(
    checkpoint: str,
    name: str,
    licence: str,
    trained_by: str,
    summary: str,
    notes: str,
    scores: Path | None,
    score_command: str | None,
    out: Path | None,
    address: str | None,
    as_json: bool,
) -> None:
    """Make a folder of CHECKPOINT for others: weights, card, config, scores and a README for the hub.

    Upload the folder as it is, or with --to. Others then use its address as a CHECKPOINT.
    """
    from respike.workflows.publication import publish as publish_folder

    publication = publish_folder(
        checkpoint,
        out,
        name=name,
        licence=licence,
        command=trained_by,
        summary=summary,
        notes=notes,
        scores=scores,
        score_command=score_command,
        address=address,
    )
    if as_json:
        console.print_json(publication.to_json())
        return
    card = publication.card
    console.print_line(f"{publication.out}: {card.num_bytes / 1e6:.1f} MB, SHA-256 {card.files[0].sha256}")
    upload_hint = "upload that folder, or run this again with --to ADDRESS"
    console.print_line(f"next: {f'respike zoo show {address}' if address else upload_hint}")


@command.command(
    "import",
    epilog="""\b
Example:
  respike prepare ucf101 --split 1 --color rgb --threshold 1 --out shards/ucf101-exact
  respike zoo import checkpoint.pth --data shards/ucf101-exact --out imported/ucf101.safetensors
  respike score imported/ucf101.safetensors --data shards/ucf101-exact
""",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="DIR", shell_complete=data_sets, help="Prepared shards of what it was trained on."
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="NAME.safetensors to write."
)
@click.option(
    "--image-size", type=click.IntRange(min=32), default=224, show_default=True, help="Side of its images in pixels."
)
@click.option(
    "--eval-crop",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=1.0,
    show_default=True,
    help="Side of a crop as a share of the short side; the authors use 0.875 on Kinetics.",
)
@click.option(
    "--epochs", type=click.IntRange(min=0), default=0, show_default=True, help="Epochs of its training, if known."
)
@click.option(
    "--class-order",
    type=click.Choice(["names", "data"]),
    help="Order of its labels: sorted class names, or as in --data.  [default: names for ucf101, else data]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def import_weights(
    file: Path,
    data: str,
    out: Path,
    image_size: int,
    eval_crop: float,
    epochs: int,
    class_order: "ClassOrder | None",
    as_json: bool,
) -> None:
    """Make a checkpoint of FILE, a .pth or .safetensors that the paper's published code trained.

    Its tensors must be those of the hybrid ResNet-18 or ResNet-50. Reading them runs no code. Classes, clip settings
    and training videos are taken from --data: name shards of the split that it was trained on. On UCF101 the published
    code numbers the class folders in sorted order, not as the official list does: the head is reordered by name.
    """
    from respike.workflows.publication import import_checkpoint

    progress = console.make_progress(quiet=False, json=as_json)
    spec = import_checkpoint(
        file,
        data,
        out,
        image_size=image_size,
        eval_crop=eval_crop,
        epochs=epochs,
        class_order=class_order,
        progress=progress,
    )
    facts = {"out": str(out), "network": spec.model["name"], "num_classes": spec.model["num_classes"]}
    if as_json:
        facts |= {"weights_sha256": spec.weights_sha256, "num_videos": len(spec.train_videos)}
        console.print_json(facts)
        return
    console.print_line(f"{out}: {facts['network']}, {facts['num_classes']} classes of {spec.data.dataset}")
    console.print_line(f"next: respike score {out} --data {data}")


def _card(name: str, *, offline: bool) -> "WeightCard":
    from respike.common.storage import is_address
    from respike.zoo.weights import find_card, read_published

    return read_published(name, offline=offline or None) if is_address(name) else find_card(name)


def _size(card: "WeightCard") -> str:
    return f"{card.num_bytes / 1e6:.1f} MB" if card.has_weights else "–"


def _finding_json(finding: "WeightsStatus") -> dict[str, object]:
    return {
        "name": finding.name,
        "state": finding.state,
        "folder": _text(finding.folder),
        "problem": finding.problem,
    }


def _text(folder: Path | None) -> str | None:
    return None if folder is None else str(folder)
