"""Catalog: from a name of the zoo, a path or an address to weights on this disk, whole and checked. Loads no torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from respike.addresses import check_address, is_address
from respike.download import fetch
from respike.errors import CheckpointError
from respike.files import sha256_of_bytes, sha256_of_file
from respike.progress import SILENCE, Progress
from respike.wording import suggest
from respike.zoo.cards import CARD_NAME, IN_PACKAGE, WEIGHTS_NAME, WeightCard, is_name, read_card, read_cards

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
MIRROR_VARIABLE = "RESPIKE_ZOO_MIRROR"
CACHE_VARIABLE = "RESPIKE_CACHE"
OFFLINE_VARIABLE = "RESPIKE_OFFLINE"
DEFAULT_NAME = "respike_tiny.demo16"

State = Literal["in the package", "here", "to fetch", "damaged", "no weights yet"]


def find_card(name: str) -> WeightCard:
    """Return the card called `name`. Raises CheckpointError that names the nearest and all there are."""
    cards = read_cards()
    if name not in cards:
        raise CheckpointError(f"the zoo has no weights {name!r}", suggest(name, cards))
    return cards[name]


def resolve_weights(checkpoint: str | Path, *, offline: bool | None = None, progress: Progress = SILENCE) -> Path:
    """Return where the weights lie that `checkpoint` means; fetch them first unless they are here.

    `checkpoint` is a path, which comes first where there is such a file or folder; a name of the zoo, such as
    `respike_tiny.demo16`; or the address of a folder that `respike zoo publish` wrote, such as `hf://owner/repo` or
    `https://host/folder`. Other paths are returned as they are. With `offline` (None: where RESPIKE_OFFLINE is set)
    nothing is fetched.

    Raises CheckpointError on a name the zoo lacks, or has no weights for, DownloadError where they cannot be had,
    RespikeError on an address that respike does not open.
    """
    text, path = str(checkpoint), Path(checkpoint)
    if _is_there(path) or not names_weights(checkpoint):
        return path
    card = find_card(text) if is_name(text) else read_published(text, offline=offline, progress=progress)
    return download(card, offline=offline, progress=progress)


def names_weights(checkpoint: str | Path) -> bool:
    """Whether weights may be meant: by a path where something is, by a name like the zoo's, by an address."""
    # a Path is none, since it has lost a slash of the two
    is_remote = isinstance(checkpoint, str) and is_address(checkpoint)
    return is_remote or is_name(str(checkpoint)) or _is_there(Path(checkpoint))


def _is_there(path: Path) -> bool:
    beside = [path, path.with_name(f"{path.name}.safetensors")] if path.name else [path]
    try:
        return any(each.exists() for each in beside)
    # longer than names may be, as an address can
    except OSError:
        return False


def read_published(address: str, *, offline: bool | None = None, progress: Progress = SILENCE) -> WeightCard:
    """Read the card of a published folder, fetched unless it was before; its weights are then asked for at `address`.

    Raises DownloadError where it cannot be had, CheckpointError where it is no card, RespikeError on an address that
    respike does not open.
    """
    # as it was given, before the name of a file stands behind it
    check_address(address)
    address = address.rstrip("/")
    folder = cache_folder() / f"address-{sha256_of_bytes(address.encode())[:16]}"
    path = fetch(f"{address}/{CARD_NAME}", folder / CARD_NAME, offline=_is_offline(offline), progress=progress)
    card = read_card(path)
    if not card.has_weights:
        raise CheckpointError(f"{address} holds a recipe without weights", "publish a checkpoint there")
    # wherever its author had it, here is where it was found
    return replace(card, sources=(address,))


def verify_fetched() -> list["Finding"]:
    """Verify what was fetched by the addresses of published folders, by name; a card alone is no finding."""
    findings = []
    for path in cache_folder().glob(f"address-*/{CARD_NAME}"):
        try:
            card = read_card(path)
        except CheckpointError as error:
            findings.append(Finding(name=path.parent.name, state="damaged", folder=path.parent, problem=error.problem))
            continue
        # the copy in question is never the package's, whatever its author says
        card = replace(card, sources=tuple(source for source in card.sources if source != IN_PACKAGE))
        if card.has_weights and folder_of(card).is_dir():
            findings.append(verify(card))
    return sorted(findings, key=lambda finding: finding.name)


def download(card: WeightCard, *, offline: bool | None = None, progress: Progress = SILENCE) -> Path:
    """Return the `.safetensors` of a card, from the package, from where it was fetched to before, or fetched now.

    A folder named in RESPIKE_ZOO_MIRROR is asked before the card's sources; it holds a published folder for each name.
    Raises CheckpointError where the card has no weights or no source, DownloadError where none of the sources gives
    the files of the card's SHA-256.
    """
    if not card.has_weights:
        raise CheckpointError(f"{card.name} is a recipe: there are no weights yet", f"train them: {card.command}")
    folder = folder_of(card)
    if IN_PACKAGE in card.sources and folder == packaged_folder(card):
        return folder / WEIGHTS_NAME
    addresses = _addresses(card)
    if not addresses:
        raise CheckpointError(f"the card of {card.name} names no source", f"name a mirror in {MIRROR_VARIABLE}")
    for file in card.files:
        first, *others = (f"{address}/{file.name}" for address in addresses)
        fetch(
            first,
            folder / file.name,
            mirrors=others,
            sha256=file.sha256,
            num_bytes=file.num_bytes,
            offline=_is_offline(offline),
            progress=progress,
        )
    return folder / WEIGHTS_NAME


def folder_of(card: WeightCard) -> Path:
    """Where a card's files lie, or will lie once they are fetched."""
    if IN_PACKAGE in card.sources:
        return packaged_folder(card)
    # under the hash of the weights, so that two cards of one name never share a file
    weights = next(file for file in card.files if file.name == WEIGHTS_NAME)
    return cache_folder() / f"{card.name}-{weights.sha256[:16]}"


def packaged_folder(card: WeightCard) -> Path:
    """Where the package holds a card's files, if it does."""
    return WEIGHTS_FOLDER / card.name


def cache_folder() -> Path:
    """Where weights are fetched to: RESPIKE_CACHE, else `respike` in XDG_CACHE_HOME or ~/.cache; below it `zoo`."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given) / "zoo"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "respike" / "zoo"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What looking at a card's files showed: `problem` is one line where they are damaged."""

    name: str
    state: State
    folder: Path | None = None
    problem: str = ""


def look(card: WeightCard) -> Finding:
    """Say whether a card's files are here, by their names and sizes alone."""
    if not card.has_weights:
        return Finding(name=card.name, state="no weights yet")
    folder = folder_of(card)
    missing = [file.name for file in card.files if not (folder / file.name).is_file()]
    is_packaged = IN_PACKAGE in card.sources
    if is_packaged and missing:
        problem = f"{folder} lacks {', '.join(missing)}: install respike again"
        return Finding(name=card.name, state="damaged", folder=folder, problem=problem)
    if missing:
        return Finding(name=card.name, state="to fetch")
    for file in card.files:
        if (num_bytes := (folder / file.name).stat().st_size) != file.num_bytes:
            problem = f"{folder / file.name} has {num_bytes:,} bytes, not {file.num_bytes:,}"
            return Finding(name=card.name, state="damaged", folder=folder, problem=problem)
    return Finding(name=card.name, state="in the package" if is_packaged else "here", folder=folder)


def verify(card: WeightCard) -> Finding:
    """Look at a card's files byte by byte, and whether the network they make is the card's. Loads torch for that."""
    found = look(card)
    if found.folder is None or found.state == "damaged":
        return found
    for file in card.files:
        if (sha256 := sha256_of_file(found.folder / file.name)) != file.sha256:
            problem = f"{found.folder / file.name} has the SHA-256 {sha256[:12]}…, not {file.sha256[:12]}…"
            return Finding(name=card.name, state="damaged", folder=found.folder, problem=problem)
    problem = _differing(card, found.folder)
    return Finding(name=card.name, state="damaged" if problem else found.state, folder=found.folder, problem=problem)


def _differing(card: WeightCard, folder: Path) -> str:
    """In what the network in a folder is another than the card says; "" where in nothing."""
    from respike.zoo.checkpoint import load_checkpoint

    try:
        model, spec = load_checkpoint(folder / WEIGHTS_NAME)
    except CheckpointError as error:
        return error.problem
    own: Mapping[str, object] = {
        "model": model.config.to_json(),
        "num_classes": model.config.num_classes,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": spec.image_size,
        "data": spec.data,
    }
    differing = [name for name, value in own.items() if value != getattr(card, name)]
    return f"the card's {', '.join(differing)} differ from those of the weights" if differing else ""


def _addresses(card: WeightCard) -> list[str]:
    """Folders to ask, mirrors first: who names one cannot, or does not want to, reach the others."""
    mirrors = [f"{mirror.rstrip('/')}/{card.name}" for mirror in os.environ.get(MIRROR_VARIABLE, "").split()]
    return mirrors + [source.rstrip("/") for source in card.sources if source != IN_PACKAGE]


def _is_offline(asked: bool | None) -> bool:
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0") if asked is None else asked
