"""Checkpoint: a network on disk, one safetensors file of weights and their spec. No code, no pickle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from respike.common.errors import CheckpointError, RespikeError
from respike.common.files import cache_folder, sha256_of_bytes, sha256_of_file, write_atomically
from respike.common.progress import SILENCE, Progress
from respike.common.text import counted, did_you_mean
from respike.zoo.checkpoint_spec import HINT, CheckpointSpec, read_spec, remove_pair_spec, seal_file, spec_metadata
from respike.zoo.models import OPEN_MODEL, model_config
from respike.zoo.nn.respike import ModelConfig, ReSpike
from respike.zoo.run_folder import BEST_NAME, LAST_NAME
from respike.zoo.weights import (
    CACHE_NAME,
    CARD_NAME,
    IN_PACKAGE,
    WEIGHTS_NAME,
    WeightCard,
    WeightsStatus,
    folder_of,
    look,
    read_card,
    read_cards,
    resolve_weights,
)

__all__ = ["CheckpointSpec", "find_weights", "load_checkpoint", "save_checkpoint", "suggest_weights"]

_ANY = "*.safetensors"
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


def save_checkpoint(path: Path, model: ReSpike, spec: CheckpointSpec) -> None:
    """Write the weights of `model` and their `spec` to `path`, NAME.safetensors, in one atomic write.

    Raises CheckpointError where the name ends otherwise, `spec.model` is not the model's config, or the weights are not
    float32; RespikeError where the file system refuses.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"cannot save a checkpoint as {path.name}", "use a name that ends in .safetensors")
    _require_same_config(spec.model, model.config)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"the weights {name} are {tensor.dtype}", "bring the model to float32 before saving")
    spec = replace(spec, weights_sha256=sha256_of_bytes(save(state)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, seal_file(save(state, metadata=spec_metadata(spec))))
    remove_pair_spec(path)


def load_checkpoint(
    path: str | Path, device: torch.device | str = "cpu", *, progress: Progress = SILENCE
) -> tuple[ReSpike, CheckpointSpec]:
    """Rebuild a network from its checkpoint, in evaluation mode on `device`; return it with its spec.

    `path` is the `.safetensors` file, that file without its ending, the folder of a run (its best weights), or what
    `resolve_weights` takes: a name of the zoo or an address, which is downloaded once. Weights and spec are read as
    data. Before a tensor is read, the hash, the class count and every tensor's name, shape and type are checked.

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
        raise CheckpointError(f"{weights_path} cannot be read as safetensors: {error}", HINT) from error
    model.load_state_dict(state)
    return model.to(device).eval(), spec


def find_weights(path: Path) -> Path:
    """Return the `.safetensors` file that `path` means; raise CheckpointError that lists where it was looked for."""
    if path.is_dir():
        candidates = [path / BEST_NAME, path / WEIGHTS_NAME]
    elif path.suffix in (".safetensors", ".json"):
        candidates = [path.with_suffix(".safetensors")]
    else:
        candidates = [path.with_name(f"{path.name}.safetensors")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    last = path / LAST_NAME
    if last.is_file():
        raise CheckpointError(
            f"the run {path} has no {BEST_NAME} yet, only {LAST_NAME}", f"name the weights of its last epoch: {last}"
        )
    raise CheckpointError(
        f"there is no checkpoint {path}: looked for {', '.join(map(str, candidates))}",
        f"{did_you_mean(str(path), suggest_weights(path))}name a .safetensors file, the folder of a run, or weights of "
        "`respike zoo list`",
    )


def suggest_weights(path: Path) -> list[str]:
    """Return what a mistyped path of weights may have meant: checkpoints and runs beside it, and names of the zoo."""
    try:
        found = sorted(each for each in path.parent.iterdir() if each.match(_ANY) or any(each.glob(_ANY)))
    except OSError:
        found = []
    # a checkpoint may be named without its ending
    beside = [each if path.suffix or not each.match(_ANY) else each.with_suffix("") for each in found]
    return [*map(str, beside), *(name for name, card in read_cards().items() if card.has_weights)]


def _config_of(spec: CheckpointSpec) -> ModelConfig:
    """Return the config of the spec's network. A fixed network is built from its name; the spec must agree with it."""
    num_classes, data_classes = spec.model.get("num_classes"), spec.data.classes
    if data_classes and len(data_classes) != num_classes:
        raise CheckpointError(
            f"the spec's model has num_classes {num_classes}, its data {len(data_classes)} classes", HINT
        )
    try:
        config = ModelConfig.from_json(spec.model)
        if config.name == OPEN_MODEL:
            return config
        named = model_config(config.name, num_classes=config.num_classes, branches=config.branches)
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
        raise CheckpointError(f"the tensor head.bias is {shape}, needed is [{config.num_classes}]", HINT)


def _expected_tensors(config: ModelConfig) -> Mapping[str, Tensor]:
    """Return the names, shapes and types of a network's tensors without memory for them: a spec could ask for any."""
    with torch.device("meta"):
        try:
            return ReSpike(config).state_dict()
        except RespikeError as error:
            raise CheckpointError(f"the spec's model: {error.problem}", error.hint) from error


def _read_tensors(weights: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = set(weights.keys())
    if missing := sorted(expected.keys() - names):
        raise CheckpointError(f"the weights lack {counted(len(missing), 'tensor')}, the first is {missing[0]}", HINT)
    if extra := sorted(names - expected.keys()):
        num_extra = counted(len(extra), "tensor")
        raise CheckpointError(f"the weights hold {num_extra} too many, the first is {extra[0]}", HINT)
    for name, tensor in expected.items():
        stored = weights.get_slice(name)
        got, needed = (stored.get_dtype(), list(stored.get_shape())), (_DTYPES[tensor.dtype], list(tensor.shape))
        if got != needed:
            raise CheckpointError(f"the tensor {name} is {got[0]} {got[1]}, needed is {needed[0]} {needed[1]}", HINT)
    return {name: weights.get_tensor(name) for name in expected}


def verify_fetched() -> list[WeightsStatus]:
    """Verify the weights that were downloaded from addresses, sorted by name. Skips cards without their weights."""
    findings = []
    for path in cache_folder(CACHE_NAME).glob(f"address-*/{CARD_NAME}"):
        try:
            card = read_card(path)
        except CheckpointError as error:
            findings.append(
                WeightsStatus(name=path.parent.name, state="damaged", folder=path.parent, problem=error.problem)
            )
            continue
        # this copy is in the cache, even if its author's copy is in the package
        card = replace(card, sources=tuple(source for source in card.sources if source != IN_PACKAGE))
        if card.has_weights and folder_of(card).is_dir():
            findings.append(verify_weights(card))
    return sorted(findings, key=lambda finding: finding.name)


def verify_weights(card: WeightCard) -> WeightsStatus:
    """Check a card's files byte by byte, and that their network is the one on the card."""
    found = look(card)
    if found.folder is None or found.state == "damaged":
        return found
    for file in card.files:
        if (sha256 := sha256_of_file(found.folder / file.name)) != file.sha256:
            problem = f"{found.folder / file.name} has the SHA-256 {sha256[:12]}…, not {file.sha256[:12]}…"
            return replace(found, state="damaged", problem=problem)
    problem = _find_difference(card, found.folder)
    return replace(found, state="damaged", problem=problem) if problem else found


def _find_difference(card: WeightCard, folder: Path) -> str:
    """Return in what the weights in `folder` differ from their card; "" where in nothing."""
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
