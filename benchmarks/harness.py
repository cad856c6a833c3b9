"""Contenders in turns within one run, so that whatever else the machine does hits them all: medians, ratios, JSON.

    comparison = compare("workers", {"one": run_one, "two": run_two}, baseline="one", rounds=5)
    publish(comparison, arguments.json)

A contender is called once a round and may return the seconds that count; without them its wall time does. Beside the
wall time stands processor time, of this process and of its children: on a machine that others use too, it is the
steadier of the two.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import psutil

Contender = Callable[[], float | None]
PACKAGES = (
    "respike",
    "numpy",
    "av",
    "opencv-python-headless",
    "zstandard",
    "simplejpeg",
    "ray",
    "torch",
    "decord",
    "torchcodec",
    "spikingjelly",
    "snntorch",
)


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
    units: Mapping[str, float] | None = None,
    unit: str = "run",
    extras: Mapping[str, Mapping[str, Any]] | None = None,
    left_out: Iterable[str] = (),
) -> dict[str, Any]:
    """Call every contender once a round, A B A B; return their seconds, medians, and how many times faster they are.

    A first round that is not counted (`warm_up`) fills caches. `facts` say what was worked on. Figures are those of one
    `unit`; a contender does as many of them in a call as `units` says. `extras` are figures that stand beside a
    contender's times, `left_out` says which peers are missing and why.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    load = [os.getloadavg()]
    for turn in range(rounds + warm_up):
        for name, run in contenders.items():
            started, busy = time.perf_counter(), processor_seconds()
            own = run()
            spent, busy = time.perf_counter() - started if own is None else own, processor_seconds() - busy
            if turn >= warm_up:
                share = (units or {}).get(name, 1)
                seconds[name].append(spent / share)
                processor[name].append(busy / share)
            print(
                f"  {'warm-up' if turn < warm_up else f'round {turn + 1 - warm_up}'} {name}: {spent:.3f} s",
                file=sys.stderr,
            )
    load.append(os.getloadavg())
    rows = {
        name: summarise(seconds[name], seconds[baseline])
        | {f"processor_{key}": value for key, value in summarise(processor[name], processor[baseline]).items()}
        | dict((extras or {}).get(name, {}))
        for name in contenders
    }
    return {
        "benchmark": title,
        "baseline": baseline,
        "rounds": rounds,
        "unit": unit,
        "facts": dict(facts or {}),
        "contenders": rows,
        "left_out": list(left_out),
        "machine": describe_machine() | {"load_average_before": load[0][0], "load_average_after": load[1][0]},
        "versions": find_versions(),
    }


def processor_seconds() -> float:
    """Processor time so far of this process and of its children, those that have ended and those that run."""
    # `os.times` counts in hundredths of a second
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(each.user + each.system for each in running)


def summarise(seconds: list[float], baseline: list[float]) -> dict[str, Any]:
    """The figures of one contender beside the baseline's median."""
    median = statistics.median(seconds)
    return {
        "seconds": [round(value, 6) for value in seconds],
        "median_seconds": round(median, 6),
        "spread": round((max(seconds) - min(seconds)) / (median or 1), 3),
        "times_faster": round(statistics.median(baseline) / (median or 1), 3),
    }


def find_peers(
    modules: Mapping[str, str], tries: Mapping[str, Callable[[], Any]] | None = None
) -> tuple[set[str], list[str]]:
    """Import the peers, name → module, and call what `tries` has for them, since some load their libraries only then.

    Return the names that came, and a line on each that did not.
    """
    found, left_out = set(), []
    for name, module in modules.items():
        try:
            import_module(module)
            (tries or {}).get(name, lambda: None)()
            found.add(name)
        # a peer whose shared libraries are missing raises whatever it likes
        except Exception as error:
            left_out.append(f"{name}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}")
    return found, left_out


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
        f"{machine['load_average_after']:.1f} after; medians of {comparison['rounds']}, ms a {comparison['unit']}"
    )
    print(f"{'':28}{'wall ms':>10}{'spread':>8}{'× faster':>10}{'CPU ms':>10}{'spread':>8}{'× faster':>10}")
    for name, row in comparison["contenders"].items():
        wall, busy = (_three_columns(row, kind) for kind in ("", "processor_"))
        extras = [f"{key} {value}" for key, value in row.items() if key not in _TIMES]
        print(f"{name:28}{wall}{busy}{'   ' if extras else ''}{', '.join(extras)}")
    for line in comparison["left_out"]:
        print(f"left out: {line}")
    print(flush=True)
    if path is not None:
        path.write_text(json.dumps(comparison, indent=2) + "\n")


def _three_columns(row: Mapping[str, Any], kind: str) -> str:
    median, spread, faster = (row[kind + name] for name in ("median_seconds", "spread", "times_faster"))
    return f"{median * 1e3:>10.2f}{spread:>8.0%}{faster:>10.2f}"


_TIMES = {
    f"{kind}{name}" for kind in ("", "processor_") for name in ("seconds", "median_seconds", "spread", "times_faster")
}
