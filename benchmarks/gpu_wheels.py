"""Collect wheels and a video for `bench_gpu.py` on a machine with a GPU that cannot reach a package index.

    python benchmarks/gpu_wheels.py FOLDER [--python 3.12]
    bash benchmarks/gpu_run.sh FOLDER OUT               # on that machine

The versions are those of constraints.txt. The machine must run Linux on x86-64 and have torch, torchvision, timm,
accelerate and OpenCV. The wheel of ffmpeg is not needed there, because the video is made here. All files together take
44 MB.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from natural import make_natural_clip

# spikingjelly imports the last two, which machines with PyTorch often lack
NAMES = ("av", "zstandard", "simplejpeg", "spikingjelly", "snntorch", "loguru", "scienceplots")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def main() -> None:
    """Download the wheels, make the video, print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="Python version of the other machine")
    arguments = parser.parse_args()
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", arguments.python, "--implementation", "cp", *platforms]
    subprocess.run([*command, "--dest", str(arguments.folder), *requirements(CONSTRAINTS.read_text())], check=True)
    make_natural_clip(arguments.folder, "ucf101").rename(arguments.folder / "clip.avi")
    files = sorted(arguments.folder.iterdir())
    for file in files:
        print(f"{file.stat().st_size / 1e6:6.1f} MB  {file.name}")
    print(f"{sum(file.stat().st_size for file in files) / 1e6:6.1f} MB in total")


def requirements(constraints: str) -> list[str]:
    """Return `NAMES` as requirements, with the versions in `constraints`."""
    pinned = {match[1].lower(): match[0] for match in re.finditer(r"^([\w.-]+)==\S+", constraints, re.MULTILINE)}
    return [pinned.get(name, name) for name in NAMES]


if __name__ == "__main__":
    main()
