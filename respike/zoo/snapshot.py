"""Snapshot: the state of a training as one safetensors file, exact to the bit."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from respike import __version__
from respike.common.config import from_plain, to_plain
from respike.common.errors import CheckpointError, MismatchError, SettingError
from respike.types import BatchSource, DataSpec
from respike.zoo.history import EpochRecord
from respike.zoo.train_config import FREE_ON_RESUME, TrainConfig
from respike.zoo.train_state import TrainState

_FORMAT = 1
_FACTS = "facts"
# fields of TrainState that are JSON as they are
_PLAIN_FIELDS = ("epoch", "step", "num_updates", "seconds", "waited_seconds", "firing_rates", "best_epoch")
_LONGEST_DIFFERENCE = 160


@runtime_checkable
class SeekableSource(Protocol):
    """A BatchSource whose position can be saved and restored, such as the loader."""

    def state_dict(self) -> dict[str, int]:
        """Return the position in the pass."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position that `state_dict` returned."""


@dataclass(frozen=True)
class Snapshot:
    """`tensors` by name, and `facts` as JSON, in which `{"tensor": name}` stands for one of the tensors."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Return the snapshot as a safetensors file, with the facts as its metadata."""
        return save(self.tensors, metadata={_FACTS: json.dumps(self.facts)})


def read_snapshot(path: Path) -> Snapshot:
    """Read a file that holds `Snapshot.to_bytes`. Raises CheckpointError if it does not."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return Snapshot({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is not a saved state of a training: {error}", "train again") from error


def take_snapshot(state: TrainState, source: BatchSource, config: TrainConfig, data: DataSpec) -> Snapshot:
    """Return a snapshot of `state` between two updates. Every process calls this and gets the state of all."""
    tensors: dict[str, Tensor] = {}
    accelerator = state.accelerator
    own = {"random": _read_random_state(accelerator.device), "sums": state.sums.tolist()}
    scaler = accelerator.scaler
    facts: dict[str, Any] = {name: getattr(state, name) for name in _PLAIN_FIELDS} | {
        "format": _FORMAT,
        "respike_version": __version__,
        "torch_version": torch.__version__,
        "config": config.to_json(),
        "model": to_plain(state.model.config),
        "data": to_plain(data),
        "best_rank": list(state.best_rank),
        "used_learning_rate": state.used_learning_rate,
        "seen_videos": sorted(set(gather_object(sorted(state.seen_videos)))),
        "history": to_plain(state.history),
        "processes": gather_object([own]),
        "source": source.state_dict() if isinstance(source, SeekableSource) else None,
        "weights": _flatten(dict(state.model.state_dict()), "model", tensors),
        "average": None if state.average is None else _flatten(state.average.module.state_dict(), "average", tensors),
        "optimizer": _flatten(state.optimizer.state_dict(), "optimizer", tensors),
        "scheduler": _flatten(state.scheduler.state_dict(), "scheduler", tensors),
        "scaler": None if scaler is None else _flatten(scaler.state_dict(), "scaler", tensors),
    }
    return Snapshot(tensors, facts)


def restore_snapshot(
    snapshot: Snapshot, state: TrainState, source: BatchSource, config: TrainConfig, data: DataSpec
) -> None:
    """Set `state`, which must be new, and `source` to the point at which the snapshot was taken.

    If `config` has more epochs than the snapshot, the learning rate is from now on that of the longer schedule.
    Raises MismatchError that names differences in settings, network, data or number of processes, and CheckpointError
    if the snapshot lacks something.
    """
    facts, tensors = snapshot.facts, snapshot.tensors
    try:
        _require_same_run(facts, state, config, data)
        state.model.load_state_dict(_unflatten(facts["weights"], tensors))
        if state.average is not None:
            state.average.module.load_state_dict(_unflatten(facts["average"], tensors))
        _load_optimizer(state, _unflatten(facts["optimizer"], tensors))
        _match_memory_format(state.optimizer)
        if state.accelerator.scaler is not None:
            state.accelerator.scaler.load_state_dict(_unflatten(facts["scaler"], tensors))
        for name in _PLAIN_FIELDS:
            setattr(state, name, facts[name])
        if facts["config"]["epochs"] == config.epochs:
            state.scheduler.load_state_dict(_unflatten(facts["scheduler"], tensors))
        else:
            state.scheduler.step_update(state.num_updates)
        first, second = facts["best_rank"]
        state.best_rank = (first, second)
        # snapshots of earlier versions do not hold it
        state.used_learning_rate = facts.get("used_learning_rate")
        state.seen_videos = set(facts["seen_videos"])
        state.history = [from_plain(EpochRecord, record) for record in facts["history"]]
        own = facts["processes"][state.accelerator.process_index]
        state.sums = torch.tensor(own["sums"], device=state.accelerator.device)
        if isinstance(source, SeekableSource) and facts["source"] is not None:
            source.load_state_dict(facts["source"])
        _restore_random_state(own["random"], state.accelerator.device)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, SettingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the saved training lacks something: {reason}", "train again") from error


def _require_same_run(facts: Mapping[str, Any], state: TrainState, config: TrainConfig, data: DataSpec) -> None:
    if facts["format"] != _FORMAT:
        raise MismatchError(
            f"the training was saved in format {facts['format']}, this version of respike reads format {_FORMAT}",
            f"resume it with respike {facts['respike_version']}",
        )
    pairs = {
        # a setting that is younger than the snapshot had its default
        "setting": (TrainConfig().to_json() | facts["config"], config.to_json()),
        "network's": (facts["model"], to_plain(state.model.config)),
        "data's": (facts["data"], to_plain(data)),
        "number of": ({"processes": len(facts["processes"])}, {"processes": state.accelerator.num_processes}),
    }
    differences = [
        f"{kind} {name} was {saved.get(name)!r}, is {given.get(name)!r}"
        for kind, (saved, given) in pairs.items()
        for name in sorted(saved.keys() | given.keys())
        if saved.get(name) != given.get(name)
        and name not in FREE_ON_RESUME
        and not (kind == "setting" and name == "epochs" and given[name] > saved[name])
    ]
    if differences:
        listed = "; ".join(
            text if len(text) <= _LONGEST_DIFFERENCE else f"{text[: _LONGEST_DIFFERENCE - 1]}…" for text in differences
        )
        raise MismatchError(
            f"the training was started with other settings: {listed}",
            "resume it with its own settings, or train in another folder",
        )


def _load_optimizer(state: TrainState, saved: dict[str, Any]) -> None:
    # with equal settings this is the only way in which the groups can differ, see make_param_groups
    if len(saved["param_groups"]) != len(state.optimizer.param_groups):
        raise MismatchError(
            "the training was started with weight decay on the time constants of the neurons; "
            "this version of respike has none there",
            "resume it with the version of respike that started it, or train again from its checkpoint (init)",
        )
    state.optimizer.load_state_dict(saved)


def _match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory format of their parameters again: in another one sums may round differently."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON; its tensors move to `tensors`, under names that begin with `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        # a list of pairs, since JSON would turn keys that are numbers into text
        return {"items": [[key, _flatten(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        flat = [_flatten(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
        return {"tuple": flat} if isinstance(value, tuple) else flat
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"{name} is a {type(value).__name__}, which cannot be saved", "choose another optimizer")


def _unflatten(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `_flatten` was given."""
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unflatten(item, tensors) for item in value["tuple"])
    return {key: _unflatten(item, tensors) for key, item in value["items"]}


def _read_random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every random generator that a training on `device` may use."""
    version, numbers, gauss = random.getstate()
    name, words, position, has_gauss, cached_gauss = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, [int(word) for word in words], int(position), int(has_gauss), float(cached_gauss)],
        "torch": bytes(torch.get_rng_state().numpy()).hex(),
    }
    if device.type == "cuda":
        state["cuda"] = bytes(torch.cuda.get_rng_state(device).numpy()).hex()
    elif device.type == "mps":
        state["mps"] = bytes(torch.mps.get_rng_state().numpy()).hex()
    return state


def _restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, words, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((name, np.array(words, dtype=np.uint32), position, has_gauss, cached_gauss))
    torch.set_rng_state(_from_hex(state["torch"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_from_hex(state["cuda"]), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(_from_hex(state["mps"]))


def _from_hex(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
