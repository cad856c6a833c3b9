"""Checkpoint: weights as NAME.safetensors, and what they are as NAME.json beside it. No code, no pickle.

The JSON holds the SHA-256 of the weights, so that the two are known to belong together, and its own (of its text with
zeros in that place). A crash at any moment leaves a pair that loads: the new JSON waits as `.NAME.json.next` while the
weights are replaced.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from respike import __version__
from respike.errors import CheckpointError, RespikeError
from respike.files import canonical_json, sha256_of_bytes, sha256_of_file, write_atomically
from respike.progress import SILENCE, Progress
from respike.sample import DataSpec
from respike.zoo.cards import WEIGHTS_NAME
from respike.zoo.catalog import resolve_weights
from respike.zoo.models import OPEN_MODEL, model_config
from respike.zoo.nn.respike import ModelConfig, ReSpike

_BEST = "best.safetensors"
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}
_SEAL, _UNSEALED = "spec_sha256", "0" * 64
_HINT = "take another checkpoint, or train it again"


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

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        shallow = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return shallow | {"data": self.data.to_json(), "train_videos": list(self.train_videos)}

    @classmethod
    def from_json(cls, value: object) -> "CheckpointSpec":
        """Read what `to_json` gave. Raises CheckpointError that names a missing, unknown or misshapen field."""
        if not isinstance(value, dict):
            raise CheckpointError(f"the spec is a {type(value).__name__}, needed is a JSON object", _HINT)
        for name, kind in _FIELD_KINDS.items():
            if name not in value:
                raise CheckpointError(f"the spec lacks the field {name!r}", _HINT)
            if not isinstance(value[name], kind) or isinstance(value[name], bool):
                raise CheckpointError(f"the spec's field {name!r} is a {type(value[name]).__name__}", _HINT)
        if unknown := sorted(value.keys() - _FIELD_KINDS.keys()):
            raise CheckpointError(f"the spec holds an unknown field {unknown[0]!r}", _HINT)
        try:
            data = DataSpec.from_json(value["data"])
        except RespikeError as error:
            raise CheckpointError(f"the spec's field 'data': {error.problem}", _HINT) from error
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


def save_checkpoint(path: Path, model: ReSpike, spec: CheckpointSpec) -> None:
    """Write the weights to `path` (NAME.safetensors) and `spec` with their SHA-256 to NAME.json beside it.

    Raises CheckpointError where `path` ends otherwise, where `spec.model` is not the model's config, or where the
    weights are not float32; RespikeError where the disk refuses.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"cannot save a checkpoint as {path.name}", "let the name end in .safetensors")
    _require_same_config(spec.model, model.config)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"the weights {name} are {tensor.dtype}", "bring the model to float32 before saving")
    content = save(state)
    text = seal_spec(dataclasses.replace(spec, weights_sha256=sha256_of_bytes(content)).to_json())
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = _waiting_spec(path)
    write_atomically(waiting, text)
    write_atomically(path, content)
    waiting.replace(path.with_suffix(".json"))


def load_checkpoint(
    path: str | Path, device: torch.device | str = "cpu", *, progress: Progress = SILENCE
) -> tuple[ReSpike, CheckpointSpec]:
    """Rebuild a network from its checkpoint, in evaluation mode on `device`; return it with its spec.

    `path` is the `.safetensors`, the `.json`, the two without their ending, the folder of a run (its best), or what
    `resolve_weights` takes besides: a name of the zoo or an address, which is fetched unless it was before.
    Weights and spec are read as data only, and checked before a tensor is made: hash, class count, every tensor's
    name, shape and type.

    Raises CheckpointError that names the file, field or tensor that does not fit.
    """
    weights_path = find_weights(resolve_weights(path, progress=progress))
    spec = read_spec(weights_path)
    config = _config_of(spec)
    try:
        with safe_open(weights_path, framework="pt", device="cpu") as weights:
            _require_num_classes(weights, config)
            state = _read_tensors(weights, _expected_tensors(config))
            model = ReSpike(config)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights_path} cannot be read as safetensors: {error}", _HINT) from error
    model.load_state_dict(state)
    return model.to(device).eval(), spec


def find_weights(path: Path) -> Path:
    """Return the `.safetensors` that `path` means; raise CheckpointError that lists what was looked for."""
    if path.is_dir():
        candidates = [path / _BEST, path / WEIGHTS_NAME]
    elif path.suffix in (".safetensors", ".json"):
        candidates = [path.with_suffix(".safetensors")]
    else:
        candidates = [path.with_name(f"{path.name}.safetensors")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise CheckpointError(
        f"there is no checkpoint {path}: looked for {', '.join(map(str, candidates))}",
        "name a .safetensors file, the folder of a run, or weights of `respike zoo list`",
    )


def seal_spec(fields: Mapping[str, Any]) -> str:
    """The text of a spec's file: its fields as JSON, and the SHA-256 of that text."""
    text = canonical_json({**fields, _SEAL: _UNSEALED}, indent=2)
    return text.replace(_UNSEALED, sha256_of_bytes(text.encode()))


def _open_spec(content: bytes) -> dict[str, Any]:
    """The fields in a spec's file. Raises CheckpointError where a byte is not as it was written."""
    fields = json.loads(content)
    if not isinstance(fields, dict):
        raise CheckpointError(f"the spec is a {type(fields).__name__}, needed is a JSON object", _HINT)
    seal = fields.pop(_SEAL, None)
    if not isinstance(seal, str):
        raise CheckpointError(f"the spec lacks the field {_SEAL!r}", _HINT)
    if sha256_of_bytes(content.replace(seal.encode(), _UNSEALED.encode())) != seal:
        raise CheckpointError(f"the spec was changed or damaged: its {_SEAL} is another", _HINT)
    return fields


def _waiting_spec(weights_path: Path) -> Path:
    return weights_path.with_name(f".{weights_path.stem}.json.next")


def read_spec(weights_path: Path) -> CheckpointSpec:
    """Read the spec of the `.safetensors` at `weights_path`; raise CheckpointError unless the two belong together."""
    spec_path = weights_path.with_suffix(".json")
    sha256 = sha256_of_file(weights_path)
    found = []
    # the waiting one counts where a crash came between the two renames
    for candidate in (spec_path, _waiting_spec(weights_path)):
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
        _HINT,
    )


def _parse_spec(spec_path: Path) -> CheckpointSpec:
    try:
        return CheckpointSpec.from_json(_open_spec(spec_path.read_bytes()))
    # a JSON nested a thousand levels deep ends in a RecursionError
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{spec_path} cannot be read as JSON: {error}", _HINT) from error
    except CheckpointError as error:
        raise CheckpointError(f"{spec_path}: {error.problem}", error.hint) from error


def _config_of(spec: CheckpointSpec) -> ModelConfig:
    """Find the network that the spec names; the figures of a fixed one are compared, never built from."""
    for name in ("name", "num_classes", "branches"):
        if name not in spec.model:
            raise CheckpointError(f"the spec's model lacks the field {name!r}", _HINT)
    name, num_classes, branches = (spec.model[field] for field in ("name", "num_classes", "branches"))
    if not isinstance(num_classes, int) or not isinstance(name, str) or not isinstance(branches, str):
        raise CheckpointError("the spec's model has a name, num_classes or branches of another type", _HINT)
    if spec.data.classes and len(spec.data.classes) != num_classes:
        raise CheckpointError(
            f"the spec's model has num_classes {num_classes}, its data {len(spec.data.classes)} classes", _HINT
        )
    try:
        config = ModelConfig.from_json(spec.model)
        if name == OPEN_MODEL:
            return config
        named = model_config(name, num_classes=num_classes, branches=config.branches)
    except RespikeError as error:
        raise CheckpointError(f"the spec's model: {error.problem}", error.hint) from error
    _require_same_config(config.to_json(), named)
    return named


def _require_same_config(written: Mapping[str, Any], config: ModelConfig) -> None:
    known = config.to_json()
    for name in sorted(known.keys() | written.keys()):
        if name not in known or name not in written or written[name] != known[name]:
            raise CheckpointError(
                f"the spec's model field {name!r} is {written.get(name, 'missing')!r}, "
                f"{config.name} has {known.get(name, 'no such field')!r}",
                "load it with the version of respike that wrote it",
            )


def _require_num_classes(weights: Any, config: ModelConfig) -> None:
    # before the network is built: a spec could ask for a billion classes
    shape = list(weights.get_slice("head.bias").get_shape()) if "head.bias" in weights.keys() else "missing"  # noqa: SIM118
    if shape != [config.num_classes]:
        raise CheckpointError(f"the tensor head.bias is {shape}, needed is [{config.num_classes}]", _HINT)


def _expected_tensors(config: ModelConfig) -> Mapping[str, Tensor]:
    """Names, shapes and types of a network's tensors, without their memory: a spec could ask for any size."""
    with torch.device("meta"):
        try:
            return ReSpike(config).state_dict()
        except RespikeError as error:
            raise CheckpointError(f"the spec's model: {error.problem}", error.hint) from error


def _read_tensors(weights: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = set(weights.keys())
    if missing := sorted(expected.keys() - names):
        raise CheckpointError(f"the weights lack {len(missing)} tensors, the first is {missing[0]}", _HINT)
    if extra := sorted(names - expected.keys()):
        raise CheckpointError(f"the weights hold {len(extra)} tensors too many, the first is {extra[0]}", _HINT)
    for name, tensor in expected.items():
        stored = weights.get_slice(name)
        got, needed = (stored.get_dtype(), list(stored.get_shape())), (_DTYPES[tensor.dtype], list(tensor.shape))
        if got != needed:
            raise CheckpointError(f"the tensor {name} is {got[0]} {got[1]}, needed is {needed[0]} {needed[1]}", _HINT)
    return {name: weights.get_tensor(name) for name in expected}
