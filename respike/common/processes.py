"""Processes: memory that a process keeps for reuse."""

import ctypes

_TRIM_BYTES, _MMAP_BYTES = 256 << 20, 32 << 20  # the second is the most that glibc allows
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(_TRIM_BYTES), "MALLOC_MMAP_THRESHOLD_": str(_MMAP_BYTES)}
"""Variables that make a process keep its memory, if it is started with them."""


def keep_memory() -> bool:
    """Make this process keep up to 256 MB of what it frees; return whether its C library can be asked to."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES) and mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES))
