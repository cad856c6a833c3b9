"""`respike doctor`: what is installed and found, and what to do about what is not."""

import importlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click

import respike
from respike.common.processes import usable_cpus
from respike.common.text import format_bytes

# module → the package that brings it; loading them shows what a version number hides, such as a missing system library
_LOADED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "av": "av",
    "cv2": "opencv-python-headless",
    "simplejpeg": "simplejpeg",
    "zstandard": "zstandard",
    "safetensors": "safetensors",
    "webdataset": "webdataset",
    "matplotlib": "matplotlib",
}
_LITTLE_DISK_BYTES = 5e9
_MARKS = {True: "ok", False: "MISSING"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked for: whether it is there, what was found, and what to do where that is not enough."""

    name: str
    ok: bool
    found: str
    hint: str = ""


@click.command(
    epilog="""\b
Examples:
  respike doctor
  respike doctor --json
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show what is installed and found: packages, ffmpeg, devices, cores, memory, disk.

    Exits 1 where something that respike needs is missing.
    """
    from respike.cli import console

    checks = examine()
    is_well = all(check.ok for check in checks)
    if as_json:
        console.print_json({"ok": is_well, "checks": [asdict(check) for check in checks]})
    else:
        console.print_table(("", "", "found"), [(check.name, _MARKS[check.ok], check.found) for check in checks])
        for check in checks:
            if check.hint:
                console.print_line(f"{check.name}: {check.hint}")
    if not is_well:
        context.exit(1)


def examine() -> list[Check]:
    """Look for all that respike needs or uses; nothing here fails because something is missing."""
    return [
        Check(name="respike", ok=True, found=f"{respike.__version__} in {Path(respike.__file__).parent}"),
        Check(name="python", ok=True, found=f"{platform.python_version()}, {sys.executable}"),
        Check(name="system", ok=True, found=platform.platform()),
        *(check_module(module, package) for module, package in _LOADED.items()),
        _check_device(),
        check_ffmpeg(),
        _check_cores(),
        check_disk(shutil.disk_usage(".").free),
    ]


def check_module(module: str, package: str) -> Check:
    """Load a module and name its version. `package` is what pip calls it."""
    install = f"pip install {package}"
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        return Check(name=module, ok=False, found=str(error), hint=install)
    except Exception as error:  # a broken installation may raise anything at all
        reason = str(error).partition("\n")[0] or type(error).__name__
        return Check(name=module, ok=False, found=f"cannot be loaded: {reason}", hint=f"{install} --force-reinstall")
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = str(getattr(loaded, "__version__", "of unknown version"))
    return Check(name=module, ok=True, found=version)


def _check_device() -> Check:
    try:
        import torch
    except Exception:  # told by the module's own check
        return Check(name="device", ok=False, found="unknown without torch")
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return Check(
            name="device", ok=True, found=", ".join(f"{card.name}, {format_bytes(card.total_memory)}" for card in cards)
        )
    if torch.backends.mps.is_available():
        return Check(name="device", ok=True, found="mps")
    if shutil.which("nvidia-smi") is None:
        return Check(name="device", ok=True, found="cpu alone")
    hint = "there is an NVIDIA driver, but this torch cannot use it: install a torch built for its CUDA version"
    return Check(name="device", ok=True, found="cpu alone", hint=hint)


def check_ffmpeg() -> Check:
    """Run the ffmpeg that would be used: the one on PATH, else the one that imageio-ffmpeg brings."""
    hint = "only making videos, as `respike demo` does, needs it: pip install imageio-ffmpeg"
    try:
        from respike.data.video_writer import ffmpeg_path

        path = ffmpeg_path()
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Check(name="ffmpeg", ok=False, found=str(error).partition("\n")[0], hint=hint)
    origin = "on PATH" if path == shutil.which("ffmpeg") else "from imageio-ffmpeg"
    version = answer.removeprefix("ffmpeg version ").partition(" ")[0]
    return Check(name="ffmpeg", ok=True, found=f"{version} {origin}, {path}")


def _check_cores() -> Check:
    num_cores = usable_cpus()
    try:
        import psutil
    except ImportError:
        return Check(name="cores", ok=True, found=str(num_cores), hint="pip install psutil to see memory here")
    memory = psutil.virtual_memory()
    found = f"{num_cores}; memory {format_bytes(memory.available)} free of {format_bytes(memory.total)}"
    return Check(name="cores", ok=True, found=found)


def check_disk(num_free_bytes: int) -> Check:
    """Judge the free space of the working folder."""
    hint = "" if num_free_bytes >= _LITTLE_DISK_BYTES else "shards need room: give --out on another disk"
    return Check(name="disk", ok=True, found=f"{format_bytes(num_free_bytes)} free in {Path.cwd()}", hint=hint)
