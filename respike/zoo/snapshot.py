"""Snapshot: a whole train state as tensors and JSON, on disk and back, exact to the bit."""

import json
import random
import re
import shutil
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
from respike.common.errors import CheckpointError, MismatchError
from respike.common.files import sha256_of_bytes, sha256_of_file, write_atomically
from respike.common.progress import Progress
from respike.types import BatchSource, DataSpec
from respike.zoo.history import EpochRecord
from respike.zoo.train_config import FREE_ON_RESUME, TrainConfig
from respike.zoo.train_state import TrainState


def read_random_state(device: torch.device) -> dict[str, Any]:
    """Return where every generator stands that a training on `device` may draw from."""
    version, numbers, gauss = random.getstate()
    name, words, position, has_gauss, kept = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, [int(word) for word in words], int(position), int(has_gauss), float(kept)],
        "torch": bytes(torch.get_rng_state().numpy()).hex(),
    }
    if device.type == "cuda":
        state["cuda"] = bytes(torch.cuda.get_rng_state(device).numpy()).hex()
    elif device.type == "mps":
        state["mps"] = bytes(torch.mps.get_rng_state().numpy()).hex()
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator back to where `read_random_state` found it."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, words, position, has_gauss, kept = state["numpy"]
    np.random.set_state((name, np.array(words, dtype=np.uint32), position, has_gauss, kept))
    torch.set_rng_state(_from_hex(state["torch"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_from_hex(state["cuda"]), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(_from_hex(state["mps"]))


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


_FORMAT = 1
_PLAIN = ("epoch", "step", "num_updates", "seconds", "waited_seconds", "firing_rates", "best_epoch")


@runtime_checkable
class SeekableSource(Protocol):
    """A BatchSource that can tell where it stands and go on from there, as the loader can."""

    def state_dict(self) -> dict[str, int]:
        """Where the pass stands."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""


@dataclass(frozen=True)
class Snapshot:
    """`tensors` by name; `facts` are JSON, in which `{"tensor": name}` stands for one of them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def take_snapshot(state: TrainState, source: BatchSource, config: TrainConfig, data: DataSpec) -> Snapshot:
    """Put down `state`, between two updates. Every process calls this; what each gets holds for all."""
    tensors: dict[str, Tensor] = {}
    accelerator = state.accelerator
    mine = {"random": read_random_state(accelerator.device), "sums": state.sums.tolist()}
    scaler = accelerator.scaler
    facts: dict[str, Any] = {name: getattr(state, name) for name in _PLAIN} | {
        "format": _FORMAT,
        "respike_version": __version__,
        "torch_version": torch.__version__,
        "config": config.to_json(),
        "model": state.model.config.to_json(),
        "data": data.to_json(),
        "best_rank": list(state.best_rank),
        "seen_videos": sorted(set(gather_object(sorted(state.seen_videos)))),
        "history": [record.to_json() for record in state.history],
        "processes": gather_object([mine]),
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
    """Bring `state`, as it was begun, and `source` to where the snapshot was taken.

    Where `config` has more epochs than the training was begun with, the rate is from there on that of the longer one.
    Raises MismatchError that names what differs in settings, network, data or number of processes, CheckpointError
    where the snapshot does not hold what it should.
    """
    facts, tensors = snapshot.facts, snapshot.tensors
    try:
        _require_same_run(facts, state, config, data)
        state.model.load_state_dict(_unflatten(facts["weights"], tensors))
        if state.average is not None:
            state.average.module.load_state_dict(_unflatten(facts["average"], tensors))
        state.optimizer.load_state_dict(_unflatten(facts["optimizer"], tensors))
        _lay_out_as_parameters(state.optimizer)
        if state.accelerator.scaler is not None:
            state.accelerator.scaler.load_state_dict(_unflatten(facts["scaler"], tensors))
        for name in _PLAIN:
            setattr(state, name, facts[name])
        if facts["config"]["epochs"] == config.epochs:
            state.scheduler.load_state_dict(_unflatten(facts["scheduler"], tensors))
        else:
            state.scheduler.step_update(state.num_updates)
        first, second = facts["best_rank"]
        state.best_rank = (first, second)
        state.seen_videos = set(facts["seen_videos"])
        state.history = [EpochRecord(**record) for record in facts["history"]]
        mine = facts["processes"][state.accelerator.process_index]
        state.sums = torch.tensor(mine["sums"], device=state.accelerator.device)
        if isinstance(source, SeekableSource) and facts["source"] is not None:
            source.load_state_dict(facts["source"])
        restore_random_state(mine["random"], state.accelerator.device)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the saved training does not hold what it should: {reason}", "train anew") from error


def _require_same_run(facts: Mapping[str, Any], state: TrainState, config: TrainConfig, data: DataSpec) -> None:
    if facts["format"] != _FORMAT:
        raise MismatchError(
            f"the training was saved in format {facts['format']}, this respike reads {_FORMAT}",
            f"go on with respike {facts['respike_version']}",
        )
    pairs = {
        # a training that was saved before a setting came to be had its default
        "setting": (TrainConfig().to_json() | facts["config"], config.to_json()),
        "network's": (facts["model"], state.model.config.to_json()),
        "data's": (facts["data"], data.to_json()),
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
        raise MismatchError(
            f"the training was begun otherwise: {'; '.join(_shorten(text) for text in differences)}",
            "resume it as it was begun, or train anew into another folder",
        )


def _shorten(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:159]}…"


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the order in memory of their parameters, as they had: in another one sums may round otherwise."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors moved to `tensors` under names that begin with `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        # a list of pairs, since JSON would turn numbers that are keys into text
        return {"items": [[key, _flatten(each, f"{name}/{key}", tensors)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        flat = [_flatten(each, f"{name}/{place}", tensors) for place, each in enumerate(value)]
        return {"tuple": flat} if isinstance(value, tuple) else flat
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"{name} is a {type(value).__name__}, which cannot be saved", "choose another optimizer")


def _unflatten(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unflatten(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unflatten(each, tensors) for each in value["tuple"])
    return {key: _unflatten(each, tensors) for key, each in value["items"]}


_NAME = re.compile(r"(\d{8})-([0-9a-f]{32})\.safetensors")
_NUM_DIGITS = 32
_FACTS = "facts"


class SnapshotFolder:
    """`NUMBER-HASH.safetensors`, the JSON in the file's own metadata: one file, so that nothing can come apart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, snapshot: Snapshot) -> None:
        """Save a snapshot; the one before it stays, older ones go, and so do damaged ones."""
        content = save(snapshot.tensors, metadata={_FACTS: json.dumps(snapshot.facts)})
        before = self.list()
        number = 1 + max((_number_of(path) for path in before), default=0)
        path = self._folder / f"{number:08d}-{sha256_of_bytes(content)[:_NUM_DIGITS]}.safetensors"
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        for old in before[1:]:
            old.unlink(missing_ok=True)

    def list(self) -> list[Path]:
        """The snapshots' files, the newest first."""
        if not self._folder.is_dir():
            return []
        return sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def find_newest(self, progress: Progress) -> Path | None:
        """Return the newest whole snapshot, None where none was saved; warn of each that is damaged, and remove it.

        Raises CheckpointError where there are only damaged ones.
        """
        paths = self.list()
        for place, path in enumerate(paths):
            if _is_whole(path):
                for damaged in paths[:place]:
                    progress.warn(f"{damaged} is damaged: going on from the snapshot before it, {path.name}")
                    damaged.unlink()
                return path
        if paths:
            raise CheckpointError(
                f"every saved state of the training is damaged: {', '.join(map(str, paths))}",
                "remove the run's folder and train anew, or start from its last.safetensors with --init",
            )
        return None

    def clear(self) -> None:
        """Remove the folder: a training that is done has no use for it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot that `find_newest` found. Raises CheckpointError where it is none."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return Snapshot({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no saved state of a training: {error}", "train anew") from error


def _number_of(path: Path) -> int:
    return int(path.name[:8])


def _is_whole(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    return match is not None and sha256_of_file(path).startswith(match[2])
