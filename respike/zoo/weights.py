"""Weights: cards that describe them, names and addresses to download them by, and checks of their files. No torch."""

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
from respike.common.text import pick
from respike.types import DataSpec

DEFAULT_NAME = "respike_tiny.demo16"
# files of a published folder; earlier versions kept the spec in a file of its own
CARD_NAME, WEIGHTS_NAME, EARLIER_SPEC_NAME = "card.json", "model.safetensors", "model.json"
CARDS_FOLDER = Path(__file__).parent / "cards"
WEIGHTS_FOLDER = Path(__file__).parent / "pretrained"
# a card's source for weights that come with respike
IN_PACKAGE = "package"
# the folder of downloaded weights below respike's cache
CACHE_NAME = "zoo"
MIRROR_VARIABLE = "RESPIKE_ZOO_MIRROR"
OFFLINE_VARIABLE = "RESPIKE_OFFLINE"

Counted = Literal["clips", "videos"]
Origin = Literal["measured here", "reported"]
State = Literal["in the package", "here", "to fetch", "damaged", "no weights yet"]

# architecture.tag, as in timm
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*\.[a-z0-9][a-z0-9_-]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A file of a set of weights: its name in the folder, its size in bytes, its SHA-256 as 64 hex digits."""

    name: str
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        # it becomes a path on the reader's disk
        if not _FILE_NAME.fullmatch(self.name):
            raise SettingError(f"the file name {self.name!r}", "allowed are letters, digits, _ . and -")
        if self.num_bytes < 1 or not _SHA256.fullmatch(self.sha256):
            raise SettingError(
                f"the file {self.name} has {self.num_bytes} bytes, SHA-256 {self.sha256!r}",
                "give 1 byte or more, and 64 small hex digits",
            )


@dataclass(frozen=True, kw_only=True)
class CardScore:
    """One score of a set of weights.

    - `metric`: top1, top5 or mean_class_accuracy; `value`: a fraction from 0 to 1.
    - `of`: what was counted, clips or videos; `count`: how many, or None; `subset`: the part of the data set.
    - `origin`: `measured here`, with respike by `command`, or `reported`, in a publication named by `by`.
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
    """What is known of a set of weights, or of a recipe for weights that nobody has trained yet (no `files`).

    - `name`: `architecture.tag`; `summary`: one line; `notes`: what else a user should know.
    - `model`: the network's ModelConfig as JSON; `num_parameters`: how many it has.
    - `image_size`: the side in pixels that it was trained at; `data`: its data, with classes and fingerprint.
    - `command`: what trains it; `training`: the settings of the training.
    - `files`: the weights; `sources`: where to get them, `package` or addresses of folders, in order of preference.
    - `scores`; `licence`: an SPDX name, NOASSERTION where there are no weights yet.
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
        names = sorted(file.name for file in self.files)
        if names not in ([], [WEIGHTS_NAME], sorted([WEIGHTS_NAME, EARLIER_SPEC_NAME])):
            raise SettingError(f"{self.name} has the files {', '.join(names)}", f"name {WEIGHTS_NAME} alone")

    @property
    def architecture(self) -> str:
        """The network's name."""
        return self.name.partition(".")[0]

    @property
    def has_weights(self) -> bool:
        """Whether there are weights, and not only a recipe for them."""
        return bool(self.files)

    @property
    def num_bytes(self) -> int:
        """Bytes to download."""
        return sum(file.num_bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values."""
        return dict(to_plain(self))

    def to_text(self) -> str:
        """The card as the text of a file that `read_card` reads."""
        return canonical_json(self.to_json(), indent=2)


def is_name(text: str) -> bool:
    """Whether `text` has the form of a name of weights, `architecture.tag`."""
    return bool(_NAME.fullmatch(text)) and not text.endswith((".safetensors", ".json"))


def check_name(name: str) -> str:
    """Return `name`; raise SettingError unless it is `architecture.tag`."""
    if not is_name(name):
        raise SettingError(f"the name {name!r} is not arch.tag", "write it like respike_tiny.demo16, in small letters")
    return name


def read_card(path: Path) -> WeightCard:
    """Read a card. Raises CheckpointError that names the file, and the field that does not fit."""
    try:
        return from_plain(WeightCard, json.loads(path.read_bytes()))
    # a JSON text nested a thousand levels deep ends in a RecursionError
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", "download the card again") from error
    except RespikeError as error:
        raise CheckpointError(f"{path} is no weight card: {error.problem}", error.hint) from error


def read_cards(folder: Path = CARDS_FOLDER) -> dict[str, WeightCard]:
    """Return all cards that come with respike by name: first those with weights, then recipes, each sorted."""
    cards = [read_card(path) for path in folder.glob("*.json")]
    return {card.name: card for card in sorted(cards, key=lambda card: (not card.has_weights, card.name))}


def find_card(name: str) -> WeightCard:
    """Return the card called `name`. Raises CheckpointError that suggests the nearest name and lists all."""
    try:
        return pick(read_cards(), name, "set of weights")
    except RespikeError as error:
        raise CheckpointError(error.problem, error.hint) from None


def resolve_weights(checkpoint: str | Path, *, offline: bool | None = None, progress: Progress = SILENCE) -> Path:
    """Return the path of the weights that `checkpoint` means; download them if they are not on this machine.

    `checkpoint` is one of three. A path comes first where such a file or folder exists. A name of the zoo is like
    `respike_tiny.demo16`. An address names a folder that `respike zoo publish` wrote, such as `hf://owner/repo` or
    `https://host/folder`. Other paths are returned unchanged. With `offline` nothing is downloaded; None means: if
    RESPIKE_OFFLINE is set.

    Raises CheckpointError on a name that the zoo lacks or has no weights for, DownloadError where the download fails,
    RespikeError on an address that respike does not open.
    """
    text, path = str(checkpoint), Path(checkpoint)
    if _exists(path) or not names_weights(checkpoint):
        return path
    card = find_card(text) if is_name(text) else read_published(text, offline=offline, progress=progress)
    return download(card, offline=offline, progress=progress)


def names_weights(checkpoint: str | Path) -> bool:
    """Whether `checkpoint` may mean weights: an existing path, the form of a zoo's name, or an address."""
    # a Path has lost one of the two slashes of an address
    is_remote = isinstance(checkpoint, str) and is_address(checkpoint)
    return is_remote or is_name(str(checkpoint)) or _exists(Path(checkpoint))


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder, or one with the ending of weights."""
    try:
        return path.exists() or (bool(path.name) and path.with_name(f"{path.name}.safetensors").exists())
    # longer than a file's name may be, as addresses are
    except OSError:
        return False


def read_published(address: str, *, offline: bool | None = None, progress: Progress = SILENCE) -> WeightCard:
    """Return the card of a published folder, downloaded once, with `address` as its only source.

    Raises DownloadError where the download fails, CheckpointError where it is no card or has no weights, RespikeError
    on an address that respike does not open.
    """
    # before a file's name is appended
    check_address(address)
    address = address.rstrip("/")
    folder = cache_folder(CACHE_NAME) / f"address-{sha256_of_bytes(address.encode())[:16]}"
    path = fetch(f"{address}/{CARD_NAME}", folder / CARD_NAME, offline=_is_offline(offline), progress=progress)
    card = read_card(path)
    if not card.has_weights:
        raise CheckpointError(f"{address} holds a recipe without weights", "publish a checkpoint there")
    # the author may have had the folder elsewhere
    return replace(card, sources=(address,))


def download(card: WeightCard, *, offline: bool | None = None, progress: Progress = SILENCE) -> Path:
    """Return the `.safetensors` file of a card: from the package, from the cache, or downloaded now.

    RESPIKE_ZOO_MIRROR names folders, separated by spaces, that each hold a published folder for every name. They are
    tried before the card's sources. Raises CheckpointError where the card has no weights or no source, DownloadError
    where no source gives files with the card's SHA-256.
    """
    if not card.has_weights:
        raise CheckpointError(f"{card.name} is a recipe: there are no weights yet", f"train them: {card.command}")
    folder = folder_of(card)
    if IN_PACKAGE in card.sources:
        return folder / WEIGHTS_NAME
    mirrors = [f"{mirror.rstrip('/')}/{card.name}" for mirror in os.environ.get(MIRROR_VARIABLE, "").split()]
    addresses = [*mirrors, *(source.rstrip("/") for source in card.sources)]
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


def _is_offline(asked: bool | None) -> bool:
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0") if asked is None else asked


def folder_of(card: WeightCard) -> Path:
    """Return the folder of a card's files, in the package or in the cache, whether or not they are there.

    Raises RespikeError where respike's cache cannot be used.
    """
    if IN_PACKAGE in card.sources:
        return WEIGHTS_FOLDER / card.name
    # the hash in the name keeps two cards of one name apart
    weights = next(file for file in card.files if file.name == WEIGHTS_NAME)
    return cache_folder(CACHE_NAME) / f"{card.name}-{weights.sha256[:16]}"


@dataclass(frozen=True, kw_only=True)
class WeightsStatus:
    """The state of a card's files. `problem` is one line where they are damaged."""

    name: str
    state: State
    folder: Path | None = None
    problem: str = ""


def look(card: WeightCard) -> WeightsStatus:
    """Return the state of a card's files, judged by their names and sizes alone; `verify_weights` reads them."""
    if not card.has_weights:
        return WeightsStatus(name=card.name, state="no weights yet")
    folder = folder_of(card)
    is_packaged = IN_PACKAGE in card.sources
    missing = [file.name for file in card.files if not (folder / file.name).is_file()]
    if missing and not is_packaged:
        return WeightsStatus(name=card.name, state="to fetch")
    problem = f"{folder} lacks {', '.join(missing)}: install respike again" if missing else ""
    for file in () if missing else card.files:
        if (num_bytes := (folder / file.name).stat().st_size) != file.num_bytes:
            problem = f"{folder / file.name} has {num_bytes:,} bytes, not {file.num_bytes:,}"
    state: State = "damaged" if problem else "in the package" if is_packaged else "here"
    return WeightsStatus(name=card.name, state=state, folder=folder, problem=problem)
