"""Compare variants of the same work: each runs once in every round, and the results are medians and ratios.

    comparison = compare("workers", {"one": run_one, "two": run_two}, baseline="one", rounds=5)
    report(comparison, arguments.json)

The variants alternate (A B A B …), so other load on the machine affects all of them. A variant may return the seconds
to count; otherwise its wall time counts. Processor time, of this process and its children, is reported as well. On a
shared machine it varies less than wall time.
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

Variant = Callable[[], float | None]
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
    """Parse the options of a benchmark: `--rounds`, `--json`, and those that `add` adds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured calls of each variant")
    parser.add_argument("--json", type=Path, help="file for the figures")
    if add is not None:
        add(parser)
    return parser.parse_args()


def compare(
    title: str,
    variants: Mapping[str, Variant],
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
    """Call every variant once in each round; return seconds, medians, spreads, and ratios to the `baseline`.

    - `warm_up`: run one round first that is not counted, to fill caches.
    - `facts`: what the work is, for the table and the JSON.
    - `unit`, `units`: times are given for one `unit`; `units` says how many of them a call of a variant does (1).
    - `extras`: more figures of a variant, shown beside its times.
    - `left_out`: one line for each peer that is missing, with the reason.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    processor: dict[str, list[float]] = {name: [] for name in variants}
    load = [os.getloadavg()]
    for turn in range(rounds + warm_up):
        for name, run in variants.items():
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
        for name in variants
    }
    return {
        "benchmark": title,
        "baseline": baseline,
        "rounds": rounds,
        "unit": unit,
        "facts": dict(facts or {}),
        "variants": rows,
        "left_out": list(left_out),
        "machine": describe_machine() | {"load_average_before": load[0][0], "load_average_after": load[1][0]},
        "versions": find_versions(),
    }


def processor_seconds() -> float:
    """Return the processor time of this process and of its children, both finished and running."""
    # `os.times` has a resolution of only 10 ms
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(each.user + each.system for each in running)


def summarise(seconds: list[float], baseline: list[float]) -> dict[str, Any]:
    """Return the figures of one variant, with the ratio to the median of the baseline."""
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
    """Import the peers (name → module). Return the names that work, and one line for each that does not.

    `tries` holds a first call for peers that load their libraries only then.
    """
    found, left_out = set(), []
    for name, module in modules.items():
        try:
            import_module(module)
            (tries or {}).get(name, lambda: None)()
            found.add(name)
        # if its shared libraries are missing, a peer may raise any exception
        except Exception as error:
            left_out.append(f"{name}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}")
    return found, left_out


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, system and Python version of this machine."""
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
    """Return the versions of those of `PACKAGES` that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def report(comparison: Mapping[str, Any], path: Path | None) -> None:
    """Print the comparison as a table. Also write it as JSON if `path` is given."""
    machine = comparison["machine"]
    print(f"{comparison['benchmark']}: {', '.join(f'{name} {value}' for name, value in comparison['facts'].items())}")
    print(
        f"{machine['processor']}, {machine['cores']} cores; load average {machine['load_average_before']:.1f} before, "
        f"{machine['load_average_after']:.1f} after"
    )
    print(f"medians in ms a {comparison['unit']}, rounds: {comparison['rounds']}")
    print(f"{'':28}{'wall ms':>10}{'spread':>8}{'× faster':>10}{'CPU ms':>10}{'spread':>8}{'× faster':>10}")
    for name, row in comparison["variants"].items():
        wall, busy = (_three_columns(row, kind) for kind in ("", "processor_"))
        extras = [f"{key} {value}" for key, value in row.items() if key not in _TIMES]
        print(f"{name:28}{wall}{busy}{'   ' if extras else ''}{', '.join(extras)}")
    for line in comparison["left_out"]:
        print(f"not measured: {line}")
    print(flush=True)
    if path is not None:
        path.write_text(json.dumps(comparison, indent=2) + "\n")


def _three_columns(row: Mapping[str, Any], kind: str) -> str:
    median, spread, faster = (row[kind + name] for name in ("median_seconds", "spread", "times_faster"))
    return f"{median * 1e3:>10.2f}{spread:>8.0%}{faster:>10.2f}"


_TIMES = {
    f"{kind}{name}" for kind in ("", "processor_") for name in ("seconds", "median_seconds", "spread", "times_faster")
}
