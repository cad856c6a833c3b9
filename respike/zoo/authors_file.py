"""Authors' file: a checkpoint as the published code saves it, read without running code that may be in it."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from respike.errors import CheckpointError

# under which a training script keeps the weights beside optimizer and settings
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_SAVE = "save the weights alone, as torch.save(network.state_dict(), FILE)"
_PARALLEL = "module."


def read_authors_file(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a `.pth` of torch.save or a `.safetensors`, alone or beside an optimizer and settings.

    No code of the file is run: of a pickle tensors and plain values are read, and nothing else. Names lose a prefix
    `module.`, numbers of other precisions become float32. Raises CheckpointError where the file holds none, or more
    than that.
    """
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            # safe from torch 2.6 on, which respike asks for; settings as argparse leaves them are plain values, too
            with torch.serialization.safe_globals([argparse.Namespace]):
                held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}", "check the path") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"{path} holds no weights that can be read without running code: {reason}"
        raise CheckpointError(problem, _SAVE) from error
    for name in (*_WRAPPERS, None):
        found = held.get(name) if isinstance(held, Mapping) and name is not None else held
        if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
            return {name: _to_ours(tensor) for name, tensor in strip_prefix(found).items()}
    raise CheckpointError(f"{path} holds no state dict", _SAVE)


def strip_prefix(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The names without the prefix that a data-parallel network has on all of them."""
    if not all(name.startswith(_PARALLEL) for name in state_dict):
        return state_dict
    return {name.removeprefix(_PARALLEL): tensor for name, tensor in state_dict.items()}


def _to_ours(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
