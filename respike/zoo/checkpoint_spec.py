"""Checkpoint spec: what a set of weights is, as JSON in the header of their safetensors file. Loads no torch.

The JSON also holds the SHA-256 of the whole file, taken with zeros in its own place: no byte can change unnoticed.
Earlier versions wrote the JSON to a file of its own beside the weights. Such pairs are still read.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike import __version__
from respike.common.config import from_plain, to_plain
from respike.common.errors import CheckpointError, RespikeError
from respike.common.files import canonical_json, sha256_of_bytes, sha256_of_file
from respike.types import DataSpec

HINT = "use another checkpoint, or train it again"
# the entry of the header's metadata that holds the spec
_METADATA_NAME = "respike"
_SEAL_NAME, _PAIR_SEAL_NAME = "file_sha256", "spec_sha256"
_ZEROS = "0" * 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUM_LENGTH_BYTES = 8
# the limit of the safetensors library
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, kw_only=True)
class CheckpointSpec:
    """What a set of weights is.

    - `model`: its ModelConfig as JSON; `image_size`: the side in pixels that it was trained at.
    - `data`: the shards that it was trained on; `train_videos`: a hash of each training video's id (`hash_video`).
    - `training`: the settings of the training; `epoch`: finished epochs, from 0; `scores`: validation after them.
    - `weights_sha256`: SHA-256 of the weights as a safetensors file without metadata; `save_checkpoint` sets it.
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
        """The side of the square that is evaluated, as a share of the short side, above 0 and up to 1."""
        share = self.training.get("eval_crop", 1.0)
        return float(share) if isinstance(share, int | float) and 0 < share <= 1 else 1.0


def spec_metadata(spec: CheckpointSpec) -> dict[str, str]:
    """Return the metadata of a safetensors file that hold `spec`, with zeros in place of the file's SHA-256."""
    return {_METADATA_NAME: canonical_json(to_plain(spec) | {_SEAL_NAME: _ZEROS})}


def seal_file(content: bytes) -> bytes:
    """Return the bytes of a safetensors file with `spec_metadata`, its SHA-256 filled in."""
    # the spec is a JSON text inside the header's JSON, so its quotes are escaped
    place = f'\\"{_SEAL_NAME}\\":\\"%s\\"'
    return content.replace((place % _ZEROS).encode(), (place % sha256_of_bytes(content)).encode(), 1)


def read_spec(weights_path: Path) -> CheckpointSpec:
    """Read the spec of the `.safetensors` file at `weights_path` and check every byte of the file against it.

    Raises CheckpointError where the file holds no spec, was changed or cut, or does not belong to the JSON file of an
    earlier version beside it.
    """
    try:
        head = _read_head(weights_path)
        text = _find_spec(head)
        if text is None:
            return _read_pair(weights_path)
        fields = _parse_object(text)
        _check_seal(fields, _SEAL_NAME, lambda seal: _hash_file(weights_path, head, seal))
        return _make_spec(fields)
    except OSError as error:
        raise CheckpointError(f"{weights_path} cannot be read: {error}", HINT) from error
    except CheckpointError as error:
        raise CheckpointError(f"{weights_path}: {error.problem}", error.hint) from error


def remove_pair_spec(weights_path: Path) -> None:
    """Remove the JSON files that an earlier version left beside the weights; other JSON files stay."""
    for path in _pair_specs(weights_path):
        try:
            if _PAIR_SEAL_NAME in json.loads(path.read_bytes()):
                path.unlink()
        except (OSError, ValueError, TypeError, RecursionError):
            continue


def _read_head(path: Path) -> bytes:
    """The first bytes of a safetensors file: the header's length, then the header where the length is credible."""
    with path.open("rb") as file:
        head = file.read(_NUM_LENGTH_BYTES)
        length = int.from_bytes(head, "little")
        return head + (file.read(length) if length <= _MAX_HEADER_BYTES else b"")


def _find_spec(head: bytes) -> str | None:
    try:
        text = json.loads(head[_NUM_LENGTH_BYTES:])["__metadata__"][_METADATA_NAME]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def _hash_file(path: Path, head: bytes, seal: str) -> str:
    """SHA-256 of a file that begins with `head`, with zeros in place of `seal`."""
    digest = hashlib.sha256(head.replace(seal.encode(), _ZEROS.encode()))
    with path.open("rb") as file:
        file.seek(len(head))
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def _check_seal(fields: dict[str, Any], name: str, compute: Callable[[str], str]) -> None:
    """Take the SHA-256 called `name` out of `fields` and compare it with the computed one."""
    seal = fields.pop(name, None)
    if not isinstance(seal, str) or not _SHA256.fullmatch(seal):
        raise CheckpointError(f"the spec holds no {name} of 64 hex digits", HINT)
    if compute(seal) != seal:
        raise CheckpointError(f"changed or damaged after it was written: its {name} is another", HINT)


def _pair_specs(weights_path: Path) -> tuple[Path, Path]:
    """Where an earlier version put the spec: beside the weights, and for a moment while it replaced the weights."""
    return weights_path.with_suffix(".json"), weights_path.with_name(f".{weights_path.stem}.json.next")


def _read_pair(weights_path: Path) -> CheckpointSpec:
    """Read the spec of weights of an earlier version. A crash may have left it in the second of the two places."""
    sha256 = sha256_of_file(weights_path)
    specs = {}
    for path in _pair_specs(weights_path):
        if path.is_file():
            specs[path] = _read_pair_spec(path)
            if specs[path].weights_sha256 == sha256:
                return specs[path]
    if not specs:
        raise CheckpointError(
            "damaged, or no checkpoint of respike: its header holds no spec",
            f"{HINT}; of an earlier version also copy {weights_path.with_suffix('.json').name} beside it",
        )
    path, spec = next(iter(specs.items()))
    raise CheckpointError(
        f"damaged, or not what {path.name} describes: "
        f"weights_sha256 is {sha256[:12]}…, the spec says {spec.weights_sha256[:12]}…",
        HINT,
    )


def _read_pair_spec(path: Path) -> CheckpointSpec:
    content = path.read_bytes()
    try:
        fields = _parse_object(content)
        _check_seal(
            fields, _PAIR_SEAL_NAME, lambda seal: sha256_of_bytes(content.replace(seal.encode(), _ZEROS.encode()))
        )
        return _make_spec(fields)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error.problem}", error.hint) from error


def _parse_object(content: str | bytes) -> dict[str, Any]:
    try:
        fields = json.loads(content)
    # a JSON text nested a thousand levels deep ends in a RecursionError
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the spec cannot be read as JSON: {error}", HINT) from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"the spec is of the type {type(fields).__name__}, needed is a JSON object", HINT)
    return fields


def _make_spec(fields: Mapping[str, Any]) -> CheckpointSpec:
    try:
        return from_plain(CheckpointSpec, fields)
    except RespikeError as error:
        raise CheckpointError(f"the spec does not fit: {error.problem}", error.hint) from error
