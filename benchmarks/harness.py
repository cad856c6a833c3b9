"""Contenders in turns within one run, so that whatever else the machine does hits them all: medians, ratios, JSON.

    comparison = compare("workers", {"one": run_one, "two": run_two}, baseline="one", rounds=5)
    publish(comparison, arguments.json)

A contender is called once a round and may return the seconds that count; without them its wall time does.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

Contender = Callable[[], float | None]
PACKAGES = ("respike", "numpy", "av", "opencv-python-headless", "zstandard", "simplejpeg", "ray", "torch")


def parse_arguments(
    doc: str | None, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The arguments of a benchmark: `--rounds`, `--json`, and those that `add` adds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    if add is not None:
        add(parser)
    return parser.parse_args()


def compare(
    title: str,
    contenders: Mapping[str, Contender],
    *,
    baseline: str,
    rounds: int,
    warm_up: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Call every contender once a round, A B A B; return their seconds, medians, and how many times faster they are.

    A first round that is not counted (`warm_up`) fills caches. `facts` say what was worked on.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    load = [os.getloadavg()]
    for turn in range(rounds + warm_up):
        for name, run in contenders.items():
            started = time.perf_counter()
            own = run()
            spent = time.perf_counter() - started if own is None else own
            if turn >= warm_up:
                seconds[name].append(spent)
            print(
                f"  {'warm-up' if turn < warm_up else f'round {turn + 1 - warm_up}'} {name}: {spent:.3f} s",
                file=sys.stderr,
            )
    load.append(os.getloadavg())
    base = statistics.median(seconds[baseline])
    return {
        "benchmark": title,
        "baseline": baseline,
        "rounds": rounds,
        "facts": dict(facts or {}),
        "contenders": {name: summarise(values, base) for name, values in seconds.items()},
        "machine": describe_machine() | {"load_average_before": load[0][0], "load_average_after": load[1][0]},
        "versions": find_versions(),
    }


def summarise(seconds: list[float], base: float) -> dict[str, Any]:
    """The figures of one contender beside the baseline's median."""
    median = statistics.median(seconds)
    return {
        "seconds": [round(value, 4) for value in seconds],
        "median_seconds": round(median, 4),
        "spread": round((max(seconds) - min(seconds)) / median, 3),
        "times_faster": round(base / median, 3),
    }


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def find_versions() -> dict[str, str]:
    """Versions of what does the work, as far as it is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def publish(comparison: Mapping[str, Any], path: Path | None) -> None:
    """Print the comparison as a table, and write it to `path` as JSON if one is given."""
    machine = comparison["machine"]
    print(f"{comparison['benchmark']}: {', '.join(f'{name} {value}' for name, value in comparison['facts'].items())}")
    print(
        f"{machine['processor']}, {machine['cores']} cores; load average {machine['load_average_before']:.1f} before, "
        f"{machine['load_average_after']:.1f} after; medians of {comparison['rounds']}"
    )
    print(f"{'':24}{'median s':>10}{'spread':>9}{'× faster':>10}")
    for name, row in comparison["contenders"].items():
        print(f"{name:24}{row['median_seconds']:>10.3f}{row['spread']:>9.0%}{row['times_faster']:>10.2f}")
    if path is not None:
        path.write_text(json.dumps(comparison, indent=2) + "\n")
