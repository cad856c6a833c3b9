"""`respike zoo`: weights listed, shown, downloaded, verified, published, imported."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli.completion import cards, checkpoints, data_sets
from respike.cli.options import OutputFolder
from respike.common.errors import RespikeError

if TYPE_CHECKING:
    from respike.common.progress import Progress
    from respike.types import DataSpec
    from respike.zoo.weights import Finding, WeightCard


@click.command(
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
@click.option("--image-size", type=click.IntRange(min=32), default=224, show_default=True, help="Pixels it is for.")
@click.option(
    "--eval-crop",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=1.0,
    show_default=True,
    help="A crop's side as a share of the short side; the authors' on Kinetics is 0.875.",
)
@click.option("--epochs", type=click.IntRange(min=0), default=0, show_default=True, help="Behind it, if that is known.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def import_weights(
    file: Path, data: str, out: Path, image_size: int, eval_crop: float, epochs: int, as_json: bool
) -> None:
    """Make a checkpoint of FILE, a .pth or .safetensors that the paper's published code has trained.

    The hybrid ResNet-18 or ResNet-50 is told by its tensors, which must be that network's to the last; reading them
    runs no code. Classes, clip settings and the videos learned from are those of --data: name shards of the split that
    it was trained on. Its labels must be in their order, that of the data set's own list.
    """
    from respike.cli import console
    from respike.data import open_shards
    from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
    from respike.zoo.compatibility import hash_video
    from respike.zoo.model_options import check_image_size
    from respike.zoo.published_code import import_published, read_published_file

    if out.exists():
        raise RespikeError(f"{out} is there already", "choose another --out, or remove it first")
    check_image_size(image_size, image_size)
    train = open_shards(data, "train")
    _warn_of_inexact(train.spec, console.make_progress(quiet=False, json=as_json))
    model = import_published(read_published_file(file), train.spec)
    spec = CheckpointSpec(
        model=model.config.to_json(),
        image_size=image_size,
        data=train.spec,
        training={"image_size": image_size, "eval_crop": eval_crop},
        epoch=epochs,
        scores={},
        train_videos=tuple(sorted({hash_video(row.video) for row in train.clips})),
    )
    save_checkpoint(out, model, spec)
    _, written = load_checkpoint(out)
    told = {"out": str(out), "network": model.config.name, "num_classes": model.config.num_classes}
    if as_json:
        console.print_json(told | {"weights_sha256": written.weights_sha256, "num_videos": len(spec.train_videos)})
        return
    console.print_line(f"{out}: {model.config.name}, {model.config.num_classes} classes of {train.spec.dataset}")
    console.print_line(f"next: respike score {out} --data {data}")


def _warn_of_inexact(data: "DataSpec", progress: "Progress") -> None:
    """Say where the shards hold other residuals than the published code computes."""
    color, threshold = data.settings.get("color"), data.settings.get("threshold")
    if (color, threshold) != ("rgb", 1):
        progress.warn(
            f"the published code takes exact RGB residuals, these shards have color {color} and threshold {threshold}: "
            "prepare with --color rgb --threshold 1 to score what it was trained on"
        )


_offline = click.option("--offline", is_flag=True, help="Fetch nothing; also where RESPIKE_OFFLINE is set.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_quiet = click.option("--quiet", is_flag=True, help="Say nothing but errors and the result.")


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
    """Weights by name: list, show, download, verify, publish; those of the published code: import.

    Wherever a checkpoint is asked for, a name from this list will do, or the address of a published folder. A folder
    named in RESPIKE_ZOO_MIRROR is asked before the sources that a card names; weights are kept in RESPIKE_CACHE.
    """


command.add_command(import_weights)


@command.command("list")
@click.option("--markdown", is_flag=True, help="Print the table of docs/zoo.md.")
@_json
def list_weights(markdown: bool, as_json: bool) -> None:
    """List the weights and the recipes that wait for some."""
    from respike.cli import console
    from respike.zoo.publishing import data_told, top1_told, zoo_table
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
        (card.name, data_told(card), next(iter(top1_told(card)), "–"), _size(card), finding.state)
        for card, finding in zip(cards, findings, strict=True)
    ]
    console.print_table(("name", "data", "top-1", "size", "state"), table)


@command.command()
@click.argument("name", shell_complete=cards)
@_offline
@_json
def show(name: str, offline: bool, as_json: bool) -> None:
    """Show the card of NAME, or of the published folder at an address."""
    from respike.cli import console
    from respike.zoo.publishing import data_told, score_told
    from respike.zoo.weights import look

    card = _card(name, offline=offline)
    finding = look(card)
    if as_json:
        console.print_json({**card.to_json(), "state": finding.state, "folder": _text(finding.folder)})
        return
    facts: dict[str, object] = {"state": finding.state, "size": _size(card)}
    facts |= {"parameters": f"{card.num_parameters:,}"} if card.num_parameters else {}
    facts |= {"data": data_told(card), "pixels": card.image_size, "trained by": card.command}
    facts |= {"fingerprint": card.data.fingerprint} if card.data.fingerprint else {}
    for score in card.scores:
        facts[score.metric if score.metric not in facts else f"{score.metric}, {score.of}"] = score_told(score)
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
    """Fetch weights by NAME or address, checked by their SHA-256; without one, the default."""
    from respike.cli import console
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
    """Check the weights that are here, all or those NAMEd, byte by byte; exit 1 where any are damaged.

    All are those that come with respike and those that were fetched, by name or by address.
    """
    from respike.cli import console
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
@click.option("--name", required=True, metavar="ARCH.TAG", help="The network's name, a dot, a tag of your own.")
@click.option("--licence", required=True, help="An SPDX name, such as Apache-2.0 or CC-BY-4.0.")
@click.option(
    "--command", "trained_by", metavar="TEXT", default="", help="What trained it.  [default: by its settings]"
)
@click.option("--summary", default="", help="One line on what it is.")
@click.option("--notes", default="", help="What a user should know.")
@click.option("--scores", type=click.Path(path_type=Path), metavar="FILE", help="What `respike score --json` printed.")
@click.option("--score-command", metavar="TEXT", help="What printed it.  [default: respike score NAME]")
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
    """Make a folder of CHECKPOINT that stands for itself: weights, card, config, scores, a README for the hub.

    It can be uploaded as it is, or with --to. Others then name its address where a checkpoint is asked for.
    """
    from respike.cli import console
    from respike.common.storage import check_address
    from respike.zoo.publishing import publish as write_folder
    from respike.zoo.publishing import upload

    if address is not None:
        check_address(address)
    out = out or Path("published") / name
    card = write_folder(
        checkpoint,
        out,
        name=name,
        licence=licence,
        command=trained_by,
        summary=summary,
        notes=notes,
        scores=None if scores is None else _read_scores(scores),
        score_command=score_command or f"respike score {name}",
        sources=() if address is None else (address,),
    )
    if address is not None:
        upload(out, address)
    if as_json:
        console.print_json({"out": str(out), "to": address, "card": card.to_json()})
        return
    console.print_line(f"{out}: {card.num_bytes / 1e6:.1f} MB, SHA-256 {card.files[0].sha256}")
    told = f"respike zoo show {address}" if address else "upload that folder, or run this again with --to ADDRESS"
    console.print_line(f"next: {told}")


def _card(name: str, *, offline: bool) -> "WeightCard":
    from respike.common.storage import is_address
    from respike.zoo.weights import find_card, read_published

    return read_published(name, offline=offline or None) if is_address(name) else find_card(name)


def _read_scores(path: Path) -> dict[str, object]:
    import json

    from respike.common.errors import RespikeError

    try:
        scores = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RespikeError(
            f"{path} cannot be read as JSON: {error}", "give what `respike score --json` printed"
        ) from None
    if not isinstance(scores, dict):
        raise RespikeError(f"{path} holds no scores", "give what `respike score --json` printed")
    return scores


def _size(card: "WeightCard") -> str:
    return f"{card.num_bytes / 1e6:.1f} MB" if card.has_weights else "–"


def _finding_json(finding: "Finding") -> dict[str, object]:
    return {
        "name": finding.name,
        "state": finding.state,
        "folder": _text(finding.folder),
        "problem": finding.problem,
    }


def _text(folder: Path | None) -> str | None:
    return None if folder is None else str(folder)
