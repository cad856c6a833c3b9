"""Weight cards: what a set of weights is, where it lies, by what it is known, and who measured what. Loads no torch."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from respike.errors import CheckpointError, RespikeError, SettingError
from respike.files import canonical_json
from respike.sample import DataSpec
from respike.zoo.plain import from_plain, to_plain

CARD_NAME = "card.json"
WEIGHTS_NAME = "model.safetensors"
SPEC_NAME = "model.json"
CARDS_FOLDER = Path(__file__).parent / "cards"
IN_PACKAGE = "package"

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
