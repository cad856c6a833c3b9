"""Checkpoint spec: what a set of weights is, as JSON beside them, sealed so that no byte changes unseen.

The JSON holds the SHA-256 of the weights, so that the two are known to belong together, and its own (of its text with
zeros in that place).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike import __version__
from respike.common.errors import CheckpointError, RespikeError
from respike.common.files import canonical_json, sha256_of_bytes, sha256_of_file
from respike.types import DataSpec

HINT = "take another checkpoint, or train it again"
_SEAL, _UNSEALED = "spec_sha256", "0" * 64


@dataclass(frozen=True, kw_only=True)
class CheckpointSpec:
    """What a set of weights is.

    `model` is its ModelConfig as JSON; `image_size` the side in pixels it was trained at; `data` the shards it was
    trained on; `training` the settings of the training; `epoch` the number of epochs behind it, from 0; `scores` what
    validation said then; `train_videos` names the videos it has seen. `save_checkpoint` fills in `weights_sha256`.
    """

    model: Mapping[str, Any]
    image_size: int
    data: DataSpec
    training: Mapping[str, Any]
    epoch: int
    scores: Mapping[str, float]
    train_videos: tuple[str, ...] = ()
    weights_sha256: str = ""
    respike_version: str = __version__

    @property
    def eval_crop(self) -> float:
        """The side of the square that it is evaluated on, as a share of the short side, above 0 and up to 1."""
        share = self.training.get("eval_crop", 1.0)
        return float(share) if isinstance(share, int | float) and 0 < share <= 1 else 1.0

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        shallow = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return shallow | {"data": self.data.to_json(), "train_videos": list(self.train_videos)}

    @classmethod
    def from_json(cls, value: object) -> "CheckpointSpec":
        """Read what `to_json` gave. Raises CheckpointError that names a missing, unknown or misshapen field."""
        if not isinstance(value, dict):
            raise CheckpointError(f"the spec is a {type(value).__name__}, needed is a JSON object", HINT)
        for name, kind in _FIELD_KINDS.items():
            if name not in value:
                raise CheckpointError(f"the spec lacks the field {name!r}", HINT)
            if not isinstance(value[name], kind) or isinstance(value[name], bool):
                raise CheckpointError(f"the spec's field {name!r} is a {type(value[name]).__name__}", HINT)
        if unknown := sorted(value.keys() - _FIELD_KINDS.keys()):
            raise CheckpointError(f"the spec holds an unknown field {unknown[0]!r}", HINT)
        try:
            data = DataSpec.from_json(value["data"])
        except RespikeError as error:
            raise CheckpointError(f"the spec's field 'data': {error.problem}", HINT) from error
        return cls(**{**value, "data": data, "train_videos": tuple(value["train_videos"])})


_FIELD_KINDS: dict[str, type] = {
    "model": dict,
    "image_size": int,
    "data": dict,
    "training": dict,
    "epoch": int,
    "scores": dict,
    "train_videos": list,
    "weights_sha256": str,
    "respike_version": str,
}


def read_spec(weights_path: Path) -> CheckpointSpec:
    """Read the spec of the `.safetensors` at `weights_path`; raise CheckpointError unless the two belong together."""
    spec_path = weights_path.with_suffix(".json")
    sha256 = sha256_of_file(weights_path)
    found = []
    # the waiting one counts where a crash came between the two renames
    for candidate in (spec_path, waiting_spec(weights_path)):
        if candidate.is_file():
            spec = _parse_spec(candidate)
            if spec.weights_sha256 == sha256:
                return spec
            found.append(spec)
    if not found:
        raise CheckpointError(f"{weights_path} has no spec: {spec_path.name} is missing", "copy it beside the weights")
    raise CheckpointError(
        f"{weights_path} is damaged or not what {spec_path.name} describes: "
        f"weights_sha256 is {sha256[:12]}…, the spec says {found[0].weights_sha256[:12]}…",
        HINT,
    )


def waiting_spec(weights_path: Path) -> Path:
    """Where a spec waits while the weights it describes are put into place."""
    return weights_path.with_name(f".{weights_path.stem}.json.next")


def seal_spec(fields: Mapping[str, Any]) -> str:
    """The text of a spec's file: its fields as JSON, and the SHA-256 of that text."""
    text = canonical_json({**fields, _SEAL: _UNSEALED}, indent=2)
    return text.replace(_UNSEALED, sha256_of_bytes(text.encode()))


def _parse_spec(spec_path: Path) -> CheckpointSpec:
    try:
        return CheckpointSpec.from_json(_open_spec(spec_path.read_bytes()))
    # a JSON nested a thousand levels deep ends in a RecursionError
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{spec_path} cannot be read as JSON: {error}", HINT) from error
    except CheckpointError as error:
        raise CheckpointError(f"{spec_path}: {error.problem}", error.hint) from error


def _open_spec(content: bytes) -> dict[str, Any]:
    """The fields in a spec's file. Raises CheckpointError where a byte is not as it was written."""
    fields = json.loads(content)
    if not isinstance(fields, dict):
        raise CheckpointError(f"the spec is a {type(fields).__name__}, needed is a JSON object", HINT)
    seal = fields.pop(_SEAL, None)
    if not isinstance(seal, str):
        raise CheckpointError(f"the spec lacks the field {_SEAL!r}", HINT)
    if sha256_of_bytes(content.replace(seal.encode(), _UNSEALED.encode())) != seal:
        raise CheckpointError(f"the spec was changed or damaged: its {_SEAL} is another", HINT)
    return fields
