"""`respike zoo`: the weights there are: listed, shown, fetched, checked, published."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli.names import cards, checkpoints
from respike.cli.outputs import OutputFolder
from respike.cli.zoo_import import import_weights

if TYPE_CHECKING:
    from respike.zoo.cards import WeightCard
    from respike.zoo.catalog import Finding

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
    from respike.cli import render
    from respike.zoo.cards import read_cards
    from respike.zoo.catalog import look
    from respike.zoo.model_card import data_told, top1_told, zoo_table

    cards = list(read_cards().values())
    if markdown:
        for line in zoo_table(cards).splitlines():
            render.print_line(line)
        return
    findings = [look(card) for card in cards]
    if as_json:
        rows = zip(cards, findings, strict=True)
        render.print_json([{**card.to_json(), "state": finding.state} for card, finding in rows])
        return
    table = [
        (card.name, data_told(card), next(iter(top1_told(card)), "–"), _size(card), finding.state)
        for card, finding in zip(cards, findings, strict=True)
    ]
    render.print_table(("name", "data", "top-1", "size", "state"), table)


@command.command()
@click.argument("name", shell_complete=cards)
@_offline
@_json
def show(name: str, offline: bool, as_json: bool) -> None:
    """Show the card of NAME, or of the published folder at an address."""
    from respike.cli import render
    from respike.zoo.catalog import look
    from respike.zoo.model_card import data_told, score_told

    card = _card(name, offline=offline)
    finding = look(card)
    if as_json:
        render.print_json({**card.to_json(), "state": finding.state, "folder": _text(finding.folder)})
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
    render.print_facts(facts, title=f"{card.name}: {card.summary}")


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=cards)
@_offline
@_quiet
@_json
def download(names: tuple[str, ...], offline: bool, quiet: bool, as_json: bool) -> None:
    """Fetch weights by NAME or address, checked by their SHA-256; without one, the default."""
    from respike.cli import render
    from respike.zoo.catalog import DEFAULT_NAME
    from respike.zoo.catalog import download as download_weights

    progress = render.make_progress(quiet=quiet, json=as_json)
    paths = {}
    for name in names or (DEFAULT_NAME,):
        card = _card(name, offline=offline)
        paths[name] = str(download_weights(card, offline=offline or None, progress=progress))
    if as_json:
        render.print_json(paths)
        return
    for path in paths.values():
        render.print_line(path)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=cards)
@_json
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check the weights that are here, all or those NAMEd, byte by byte; exit 1 where any are damaged.

    All are those that come with respike and those that were fetched, by name or by address.
    """
    from respike.cli import render
    from respike.zoo.cards import read_cards
    from respike.zoo.catalog import verify as verify_weights
    from respike.zoo.catalog import verify_fetched

    cards = [_card(name, offline=True) for name in names] or list(read_cards().values())
    findings = [verify_weights(card) for card in cards] + ([] if names else verify_fetched())
    if as_json:
        render.print_json([_finding_json(finding) for finding in findings])
    else:
        render.print_table(("name", "state", ""), [(each.name, each.state, each.problem) for each in findings])
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
    from respike.addresses import check_address
    from respike.cli import render
    from respike.zoo.publish import publish as write_folder
    from respike.zoo.upload import upload

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
        render.print_json({"out": str(out), "to": address, "card": card.to_json()})
        return
    render.print_line(f"{out}: {card.num_bytes / 1e6:.1f} MB, SHA-256 {card.files[0].sha256}")
    told = f"respike zoo show {address}" if address else "upload that folder, or run this again with --to ADDRESS"
    render.print_line(f"next: {told}")


def _card(name: str, *, offline: bool) -> "WeightCard":
    from respike.addresses import is_address
    from respike.zoo.catalog import find_card, read_published

    return read_published(name, offline=offline or None) if is_address(name) else find_card(name)


def _read_scores(path: Path) -> dict[str, object]:
    import json

    from respike.errors import RespikeError

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
