"""Random state: where the generators of Python, numpy and torch stand, as plain JSON, one process at a time."""

import random
from typing import Any

import numpy as np
import torch


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
