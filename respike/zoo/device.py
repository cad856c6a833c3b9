"""Devices: which one a name means here."""

import itertools
import resource
import sys

import torch
from torch import nn

from respike.errors import SettingError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` (auto, cpu, cuda, mps) means; auto takes the best that is there.

    Raises SettingError on another name or a device that this machine or this build of torch lacks.
    """
    if name not in DEVICES:
        raise SettingError(f"the device is {name!r}", f"choose from {', '.join(DEVICES)}")
    available = [device for device in ("cuda", "mps") if _is_available(device)] + ["cpu"]
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise SettingError(f"this machine has no device {name!r} that torch can use", f"use {' or '.join(available)}")
    return torch.device(name)


def _is_available(device: str) -> bool:
    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


def device_of(model: nn.Module) -> torch.device:
    """Return where a network's weights are; the CPU where it has none."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def measure_peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held at once, on `device` if that is an accelerator, else in all."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kibibytes, macOS in bytes
    return peak if sys.platform == "darwin" else 1024 * peak
