"""LIF backends: which code computes a layer of neurons, torch's operators or the kernels in Triton. Loads no torch."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

from respike.errors import SettingError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from respike.zoo.nn.lif import LIFSettings

LIFBackend = Literal["torch", "triton", "auto"]
LIF_BACKENDS: tuple[LIFBackend, ...] = get_args(LIFBackend)
FUSED_SURROGATE = "arctan"
_DEVICE_TYPE = "cuda"
# lif_triton, once it was asked for and has come
_kernels: ModuleType | None = None


def set_lif_backend(model: "nn.Module", backend: LIFBackend) -> None:
    """Let `backend` compute the neurons of `model`: `torch`, as they begin, `triton`, or `auto`, Triton if it is there.

    Triton's kernels take single and half precision on CUDA, the arctangent surrogate and up to 32 steps; potentials
    are in single precision. Whatever else a layer meets goes through torch's operators, as on a CPU. Raises
    SettingError where there is no such backend, or `triton` is asked for and cannot be had.
    """
    from respike.zoo.nn.lif import LIF  # loads torch, which help does without

    if backend not in LIF_BACKENDS:
        raise SettingError(f"lif_backend is {backend!r}", f"choose from {', '.join(LIF_BACKENDS)}")
    layers = [module for module in model.modules() if isinstance(module, LIF)]
    if backend != "torch":
        _load_kernels()
    if backend == "triton":
        _check_fused({layer.settings.surrogate for layer in layers})
    for layer in layers:
        layer.backend = backend


def kernels_for(current: "Tensor", num_steps: int, settings: "LIFSettings", backend: LIFBackend) -> ModuleType | None:
    """Return `lif_triton` where `backend` asks for it and it takes such currents; None means torch's operators."""
    if backend == "torch" or _kernels is None or current.device.type != _DEVICE_TYPE:
        return None
    is_known = settings.surrogate == FUSED_SURROGATE and current.dtype in _kernels.DTYPES
    return _kernels if is_known and num_steps <= _kernels.MOST_STEPS else None


def _load_kernels() -> None:
    global _kernels
    try:
        _kernels = import_module("respike.zoo.nn.lif_triton")
    except ImportError:  # no Triton, as on macOS, or an old one, as with torch 2.6
        _kernels = None


def _check_fused(surrogates: set[str]) -> None:
    if _kernels is None:
        raise SettingError(
            "lif_backend is 'triton', and there is no Triton 3.3 or later here",
            "take torch, or install torch 2.7 or later, built for CUDA",
        )
    if others := surrogates - {FUSED_SURROGATE}:
        raise SettingError(
            f"lif_backend is 'triton', which has no surrogate gradient {', '.join(sorted(others))}",
            f"take torch, or the surrogate {FUSED_SURROGATE}",
        )
