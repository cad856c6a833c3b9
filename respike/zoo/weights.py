"""Weights: cards, names, paths and addresses to files that are whole and checked. Loads no torch."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from respike.common.config import from_plain, to_plain
from respike.common.download import fetch
from respike.common.errors import CheckpointError, RespikeError, SettingError
from respike.common.files import cache_folder, canonical_json, sha256_of_bytes
from respike.common.progress import SILENCE, Progress
from respike.common.storage import check_address, is_address
from respike.common.text import suggest
from respike.types import DataSpec

CARD_NAME = "card.json"
WEIGHTS_NAME = "model.safetensors"
SPEC_NAME = "model.json"
CARDS_FOLDER = Path(__file__).parent / "cards"
IN_PACKAGE = "package"
# the folder of downloaded weights below respike's cache
CACHE_NAME = "zoo"

Counted = Literal["clips", "videos"]
Origin = Literal["measured here", "reported"]

# arch.tag, as timm has it
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*\.[a-z0-9][a-z0-9_-]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A file of a set of weights: its name in the folder, its bytes, and their SHA-256 as 64 hex digits."""

    name: str
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        # it becomes a path on the reader's disk
        if not _FILE_NAME.fullmatch(self.name):
            raise SettingError(f"the file name {self.name!r}", "allowed are letters, digits, _ . and -")
        if self.num_bytes < 1 or not _SHA256.fullmatch(self.sha256):
            raise SettingError(f"the file {self.name} has {self.num_bytes} bytes, SHA-256 {self.sha256!r}", "mend it")


@dataclass(frozen=True, kw_only=True)
class CardScore:
    """One score: `value`, a fraction from 0 to 1, of `metric` (top1, top5, mean_class_accuracy) over a data set's part.

    `of` is what was counted, clips or videos, `count` how many (None: not told). `origin` says whether it was measured
    with respike, by `command`, or is what `by`, a publication, reports.
    """

    metric: str
    value: float
    of: Counted
    subset: str
    origin: Origin
    count: int | None = None
    command: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 <= self.value <= 1):
            raise SettingError(f"the {self.metric} of {self.value}", "give a fraction from 0 to 1")
        if not (self.command if self.origin == "measured here" else self.by):
            what = "the command that measured it" if self.origin == "measured here" else "who reports it"
            raise SettingError(f"the {self.metric} of {self.value} does not say {what}", "a score must")


@dataclass(frozen=True, kw_only=True)
class WeightCard:
    """What is known of a set of weights, or of one that is still to be trained: a recipe, which has no `files`.

    - `name`: `arch.tag`; `summary`: one line; `notes`: what a user should know besides.
    - `model`: the network's ModelConfig as JSON; `num_parameters`: how many it has.
    - `image_size`: side in pixels of what it was trained on; `data`: the data, its classes and fingerprint.
    - `command`: what trains it; `training`: the settings of the training.
    - `files`: the weights and their spec; `sources`: folders that hold them, `package` or addresses, the first first.
    - `scores`; `licence`: an SPDX name, NOASSERTION where there is nothing to license yet.
    """

    name: str
    summary: str
    image_size: int
    data: DataSpec
    num_classes: int
    command: str
    licence: str
    model: Mapping[str, Any] = field(default_factory=dict)
    num_parameters: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[WeightFile, ...] = ()
    sources: tuple[str, ...] = ()
    scores: tuple[CardScore, ...] = ()
    notes: str = ""
    respike_version: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        names = [file.name for file in self.files]
        if names and sorted(names) != sorted({WEIGHTS_NAME, SPEC_NAME}):
            raise SettingError(f"{self.name} has the files {', '.join(names)}", f"name {WEIGHTS_NAME} and {SPEC_NAME}")

    @property
    def architecture(self) -> str:
        """The network's name."""
        return self.name.partition(".")[0]

    @property
    def has_weights(self) -> bool:
        """Whether there are weights, and not just a recipe for them."""
        return bool(self.files)

    @property
    def num_bytes(self) -> int:
        """Bytes to fetch."""
        return sum(file.num_bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values."""
        return dict(to_plain(self))

    def to_text(self) -> str:
        """The card as a file that `read_card` reads."""
        return canonical_json(self.to_json(), indent=2)


def check_name(name: str) -> str:
    """Return `name` where it is `arch.tag`; raise SettingError where not."""
    if not _NAME.fullmatch(name) or name.endswith((".safetensors", ".json")):
        raise SettingError(f"the name {name!r} is not arch.tag", "write it like respike_tiny.demo16, in small letters")
    return name


def is_name(text: str) -> bool:
    """Whether `text` could name weights: `arch.tag`."""
    return bool(_NAME.fullmatch(text)) and not text.endswith((".safetensors", ".json"))


def read_card(path: Path) -> WeightCard:
    """Read a card. Raises CheckpointError that names the file, and the field that does not fit."""
    try:
        return from_plain(WeightCard, json.loads(path.read_bytes()))
    # a JSON nested a thousand levels deep ends in a RecursionError
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", "fetch the card again") from error
    except RespikeError as error:
        raise CheckpointError(f"{path} is no weight card: {error.problem}", error.hint) from error


def read_cards(folder: Path = CARDS_FOLDER) -> dict[str, WeightCard]:
    """All cards that come with respike, by name, sorted; those with weights first."""
    cards = [read_card(path) for path in folder.glob("*.json")]
    return {card.name: card for card in sorted(cards, key=lambda card: (not card.has_weights, card.name))}


WEIGHTS_FOLDER = Path(__file__).parent / "pretrained"
MIRROR_VARIABLE = "RESPIKE_ZOO_MIRROR"
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
    folder = cache_folder(CACHE_NAME) / f"address-{sha256_of_bytes(address.encode())[:16]}"
    path = fetch(f"{address}/{CARD_NAME}", folder / CARD_NAME, offline=_is_offline(offline), progress=progress)
    card = read_card(path)
    if not card.has_weights:
        raise CheckpointError(f"{address} holds a recipe without weights", "publish a checkpoint there")
    # wherever its author had it, here is where it was found
    return replace(card, sources=(address,))


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
    return cache_folder(CACHE_NAME) / f"{card.name}-{weights.sha256[:16]}"


def packaged_folder(card: WeightCard) -> Path:
    """Where the package holds a card's files, if it does."""
    return WEIGHTS_FOLDER / card.name


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


def _addresses(card: WeightCard) -> list[str]:
    """Folders to ask, mirrors first: who names one cannot, or does not want to, reach the others."""
    mirrors = [f"{mirror.rstrip('/')}/{card.name}" for mirror in os.environ.get(MIRROR_VARIABLE, "").split()]
    return mirrors + [source.rstrip("/") for source in card.sources if source != IN_PACKAGE]


def _is_offline(asked: bool | None) -> bool:
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0") if asked is None else asked
