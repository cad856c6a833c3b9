"""Processes: the processors and files that a process may use, the memory that it keeps for reuse."""

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_TRIM_BYTES = 256 << 20
_MMAP_BYTES = 32 << 20  # the most that glibc allows
_MAX_FILES = 1 << 16
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameter numbers of mallopt(3)

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(_TRIM_BYTES), "MALLOC_MMAP_THRESHOLD_": str(_MMAP_BYTES)}
"""Environment variables that make a new process keep its memory."""


def keep_memory() -> bool:
    """Make this process keep up to 256 MB of freed memory for reuse; return whether its C library supports that."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES) and mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES))


def usable_cpus(cgroup_root: Path = _CGROUP_ROOT) -> int:
    """The number of processors that this process may use, at least 1.

    It is the smallest of the processor affinity, the CPU quota of the control group (cgroup v2), which containers set,
    and SLURM_CPUS_PER_TASK. A machine may have many more.
    """
    limits: list[float] = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):  # Linux only
        limits.append(len(os.sched_getaffinity(0)))
    with suppress(ValueError):
        limits.append(int(os.environ.get("SLURM_CPUS_PER_TASK", "")))
    return max(1, int(min(limits + _cgroup_quotas(cgroup_root))))


def raise_file_limit() -> int:
    """Let this process and its children open as many files as the system allows it, up to 65,536; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MAX_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):  # macOS allows less than it says
        return soft
    return wanted


def count_open_files() -> int:
    """The number of files that this process has open; 0 if the system does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208 only the number is needed
    return 0


def _cgroup_quotas(root: Path) -> list[float]:
    """The CPU quotas of the control group of this process and of the groups around it, in processors."""
    group = ""
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = root / group
    quotas = []
    for each in (folder, *folder.parents):
        if not each.is_relative_to(root):
            break
        # `200000 100000`: 200 ms of processor time in 100 ms; `max 100000`: no limit
        with suppress(OSError, ValueError):
            quota, period = (each / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))
    return quotas
