"""Environment check: what is installed and found on this machine, and what to do about what is missing."""

import importlib
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import respike
from respike.common.processes import usable_cpus
from respike.common.text import format_bytes

# packages whose module has another name
_MODULES = {"ffmpeg-python": "ffmpeg", "opencv-python-headless": "cv2"}
_LITTLE_DISK_BYTES = 5e9


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked for: whether it is all right, what was found, and what to do if it is not enough."""

    name: str
    ok: bool
    found: str
    hint: str = ""


def check_environment() -> list[Check]:
    """Check everything that respike needs or uses; never raises because something is missing."""
    return [
        Check(name="respike", ok=True, found=f"{respike.__version__} in {Path(respike.__file__).parent}"),
        Check(name="python", ok=True, found=f"{platform.python_version()}, {sys.executable}"),
        Check(name="system", ok=True, found=platform.platform()),
        *check_packages(),
        _check_device(),
        check_ffmpeg(),
        _check_cores(),
        check_disk(shutil.disk_usage(".").free),
    ]


def check_packages() -> list[Check]:
    """Check every package that an installation of respike requires, by the metadata of that installation."""
    try:
        requirements = importlib.metadata.requires("respike") or []
    except importlib.metadata.PackageNotFoundError:
        found = "respike runs from its source tree without an installation, so that its requirements are unknown"
        return [Check(name="packages", ok=False, found=found, hint="pip install -e . in the source tree")]
    return [check_module(_MODULES.get(name, name.replace("-", "_")), name) for name in _required_names(requirements)]


def _required_names(requirements: Sequence[str]) -> list[str]:
    """Return the package names in requirements such as `av>=17.1`, without those of extras."""
    names = (re.match(r"[\w.-]+", text) for text in requirements if "extra ==" not in text)
    return [match[0] for match in names if match]


def check_module(module: str, package: str) -> Check:
    """Import a module and return the version of its package.

    The import finds what a version number hides, such as a missing system library.
    """
    install = f"pip install {package}"
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        return Check(name=module, ok=False, found=str(error), hint=install)
    except Exception as error:  # a broken installation may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        return Check(name=module, ok=False, found=f"cannot be imported: {reason}", hint=f"{install} --force-reinstall")
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = str(getattr(loaded, "__version__", "unknown version"))
    return Check(name=module, ok=True, found=version)


def _check_device() -> Check:
    try:
        import torch
    except Exception:  # the check of the module says why
        return Check(name="device", ok=False, found="unknown without torch")
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return Check(
            name="device", ok=True, found=", ".join(f"{card.name}, {format_bytes(card.total_memory)}" for card in cards)
        )
    if torch.backends.mps.is_available():
        return Check(name="device", ok=True, found="mps")
    if shutil.which("nvidia-smi") is None:
        return Check(name="device", ok=True, found="cpu only")
    hint = "there is an NVIDIA driver, but this torch cannot use it: install a torch built for its CUDA version"
    return Check(name="device", ok=True, found="cpu only", hint=hint)


def check_ffmpeg() -> Check:
    """Run the ffmpeg program that writes videos; return its version, its path and where it comes from."""
    hint = "it is only needed to make videos, as `respike demo` does: pip install imageio-ffmpeg"
    try:
        from respike.data.video_writer import ffmpeg_path

        path = ffmpeg_path()
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Check(name="ffmpeg", ok=False, found=str(error).partition("\n")[0], hint=hint)
    origin = "found on PATH" if path == shutil.which("ffmpeg") else "from the package imageio-ffmpeg"
    version = answer.removeprefix("ffmpeg version ").partition(" ")[0]
    return Check(name="ffmpeg", ok=True, found=f"{version}, {path}, {origin}")


def _check_cores() -> Check:
    num_cores = usable_cpus()
    try:
        import psutil
    except Exception:  # the check of the module says why
        return Check(name="cores", ok=True, found=f"{num_cores}; memory unknown without psutil")
    memory = psutil.virtual_memory()
    found = f"{num_cores}; memory {format_bytes(memory.available)} free of {format_bytes(memory.total)}"
    return Check(name="cores", ok=True, found=found)


def check_disk(num_free_bytes: int) -> Check:
    """Return the free space of the working folder, with a hint if it is little."""
    hint = "" if num_free_bytes >= _LITTLE_DISK_BYTES else "shards need space: choose an output folder on another disk"
    return Check(name="disk", ok=True, found=f"{format_bytes(num_free_bytes)} free in {Path.cwd()}", hint=hint)
