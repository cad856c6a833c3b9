"""Devices: what a device's name means on this machine, its mixed precision, and its memory."""

import itertools
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from respike.common.errors import SettingError

if TYPE_CHECKING:
    from respike.zoo.train_config import Amp

DEVICES = ("auto", "cpu", "cuda", "mps")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` (auto, cpu, cuda or mps) means; auto prefers cuda, then mps, then cpu.

    Raises SettingError on another name, or a device that this machine or this build of torch lacks.
    """
    if name not in DEVICES:
        raise SettingError(f"the device is {name!r}", f"choose from {', '.join(DEVICES)}", setting="device")
    has_device = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [device for device, is_there in has_device.items() if is_there]
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise SettingError(
            f"this machine has no device {name!r} that torch can use", f"use {' or '.join(available)}", setting="device"
        )
    return torch.device(name)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's weights; the CPU where it has none."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def check_amp(device: torch.device, amp: "Amp") -> None:
    """Raise SettingError where a device cannot compute in the mixed precision `amp`."""
    if amp == "fp16" and device.type == "cpu":
        raise SettingError("amp is 'fp16', which a CPU cannot compute in", "use bf16 or no", setting="amp")


def autocast(device: torch.device, amp: "Amp") -> AbstractContextManager[Any]:
    """Return a context in which networks compute in the mixed precision `amp`; `no` is float32.

    Raises SettingError where the device cannot.
    """
    check_amp(device, amp)
    return nullcontext() if amp == "no" else torch.autocast(device.type, dtype=_DTYPES[amp])


def measure_peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has used at once: of a GPU's memory on cuda, else of main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kibibytes, macOS in bytes
    return peak if sys.platform == "darwin" else 1024 * peak
