"""`respike doctor`: what is installed and found, and what to do about what is not."""

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from typing import Any

import click

import respike

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "av",
    "opencv-python-headless",
    "simplejpeg",
    "webdataset",
    "zstandard",
    "safetensors",
)


@click.command(
    epilog="""\b
Examples:
  respike doctor
  respike doctor --json
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(as_json: bool) -> None:
    """Show what is installed and found: packages, ffmpeg, devices, cores, memory, disk."""
    from respike.cli import render

    facts = examine()
    if as_json:
        render.print_json(facts)
        return
    packages = facts.pop("packages")
    render.print_facts(facts)
    render.print_table(("package", "version"), [(name, version or "missing") for name, version in packages.items()])
    if missing := [name for name, version in packages.items() if version is None]:
        render.print_line(f"install what is missing: pip install {' '.join(missing)}")


def examine() -> dict[str, Any]:
    """Gather the facts; nothing here fails because something is missing."""
    import psutil

    free = shutil.disk_usage(".").free
    return {
        "respike": respike.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "cores": len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else psutil.cpu_count(),
        "memory": f"{psutil.virtual_memory().available / 1e9:.1f} GB free of {psutil.virtual_memory().total / 1e9:.1f}",
        "disk": f"{free / 1e9:.1f} GB free here",
        "ffmpeg": _ffmpeg(),
        "device": _device(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ffmpeg() -> str:
    from respike.data.video_writer import ffmpeg_path

    try:
        path = ffmpeg_path()
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"missing ({error}); only `respike demo` needs it: pip install imageio-ffmpeg"
    return f"{answer.split()[2]} ({path})"


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "torch is missing: pip install torch"
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return "mps" if torch.backends.mps.is_available() else "cpu alone"
