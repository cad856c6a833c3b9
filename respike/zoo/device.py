"""Devices: which one a name means here, and what precision it computes in."""

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


def check_amp(device: torch.device, amp: "Amp") -> None:
    """Raise SettingError where a device cannot compute in the mixed precision `amp`."""
    if amp == "fp16" and device.type == "cpu":
        raise SettingError("amp is 'fp16', which a CPU cannot compute in", "use --amp bf16 or --amp no")


def autocast(device: torch.device, amp: "Amp") -> AbstractContextManager[Any]:
    """Return a context in which networks answer in mixed precision, as in a training of that `amp`; `no` is float32.

    Raises SettingError where the device cannot.
    """
    check_amp(device, amp)
    return nullcontext() if amp == "no" else torch.autocast(device.type, dtype=_DTYPES[amp])


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
