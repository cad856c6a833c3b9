"""Run all benchmarks, each in a separate process. Their figures go to one folder; one table follows at the end.

    python benchmarks/run_all.py [--out bench] [--full] [--only NAME ...] [--limit 600]

Each script prints its own tables; then one table shows all variants of all scripts. If a script fails or takes longer
than `--limit` seconds, it is named, the others still run, and the exit code is 1. With few rounds the run takes about
ten minutes on two cores; `--full` uses the default rounds of each script. `bench_gpu` runs only if there is a GPU.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# options that shorten a script; the other scripts are short already
SHORT: dict[str, list[str]] = {
    "bench_lif": ["--rounds", "5"],
    "bench_listing": ["--rows", "60000"],
    "bench_loader": ["--rounds", "2"],
    "bench_loader_worker": ["--rounds", "3"],
    "bench_model": ["--rounds", "3"],
    "bench_prepare": ["--rounds", "2", "--copies", "5"],
    "bench_resume": ["--videos", "3330", "--rounds", "3"],
    "bench_score": ["--rounds", "2"],
    "bench_workers": ["--videos", "96", "--rounds", "2"],
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one script. `reason` is why it failed, or empty."""

    name: str
    seconds: float
    processor_seconds: float
    reason: str


def main() -> int:
    """Run the scripts one after another; return the exit code."""
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stale in arguments.out.glob("*.json"):
        stale.unlink()
    outcomes = []
    for script in find_scripts(arguments.scripts, arguments.only):
        short = [] if arguments.full else SHORT.get(script.stem, [])
        print(f"== {script.stem} {' '.join(short)}", flush=True)
        outcomes.append(run(script, [*short, "--json", str(arguments.out / f"{script.stem}.json")], arguments.limit))
    print_summary(arguments.out, outcomes)
    return int(not outcomes or any(outcome.reason for outcome in outcomes))


def find_scripts(folder: Path, only: Sequence[str]) -> list[Path]:
    """Return the benchmarks of a folder. `bench_gpu` is included only if there is a GPU, or if `only` names it."""
    scripts = sorted(folder.glob("bench_*.py"))
    if only:
        known = {script.stem for script in scripts}
        if unknown := set(only) - known:
            sys.exit(f"unknown benchmarks: {', '.join(sorted(unknown))}; choose from {', '.join(sorted(known))}")
        return [script for script in scripts if script.stem in only]
    return [script for script in scripts if script.stem != "bench_gpu" or has_gpu()]


def has_gpu() -> bool:
    """Return whether torch finds a GPU; False if torch is not installed."""
    asked = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    return subprocess.run(asked, capture_output=True).returncode == 0


def run(script: Path, options: list[str], limit: float) -> Outcome:
    """Run a script until it ends or reaches the limit. Its stdout is shown; its stderr is used for the reason only."""
    started, busy = time.perf_counter(), _processor_seconds()
    with subprocess.Popen(
        [sys.executable, str(script), *options], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, messages = process.communicate(timeout=limit)
            last = next((line for line in reversed(messages.splitlines()) if line.strip()), "")
            reason = f"exit code {process.returncode}: {last}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            # the process group includes the workers of the script
            os.killpg(process.pid, 9)
            process.communicate()
            reason = f"took longer than {limit:g} s"
    outcome = Outcome(
        name=script.stem,
        seconds=time.perf_counter() - started,
        processor_seconds=_processor_seconds() - busy,
        reason=reason,
    )
    if reason:
        print(f"FAILED {script.stem}: {reason}\n", flush=True)
    return outcome


def _processor_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def print_summary(out: Path, outcomes: list[Outcome]) -> None:
    """Print all variants, what was not measured, and the time of each script. Write `summary.json`."""
    print("== all benchmarks")
    print(f"{'':40}{'':30}{'wall ms':>12}{'CPU ms':>12}{'× faster':>10}  unit")
    missing: set[str] = set()
    for comparison in read_comparisons(out):
        missing |= set(comparison["left_out"])
        for name, row in comparison["variants"].items():
            wall, busy = (row[f"{kind}median_seconds"] * 1e3 for kind in ("", "processor_"))
            head = f"{comparison['benchmark'][:38]:40}{name[:28]:30}{wall:>12.2f}{busy:>12.2f}"
            print(f"{head}{row['processor_times_faster']:>10.2f}  {comparison['unit']}")
    for line in sorted(missing):
        print(f"not measured: {line}")
    for outcome in outcomes:
        result = f"FAILED, {outcome.reason}" if outcome.reason else "done"
        print(f"{outcome.name:20}{outcome.seconds:>8.1f} s{outcome.processor_seconds:>8.1f} s processor time  {result}")
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes)} benchmarks in {seconds / 60:.1f} minutes; figures in {out}", flush=True)
    (out / "summary.json").write_text(json.dumps([vars(outcome) for outcome in outcomes], indent=2) + "\n")


def read_comparisons(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the comparisons of `harness.report` that the JSON files of a folder hold."""
    for path in sorted(out.glob("*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            yield from content.get("comparisons", [content] if "variants" in content else [])


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for the JSON files")
    parser.add_argument("--full", action="store_true", help="use the default number of rounds of each script")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these scripts, such as bench_lif")
    parser.add_argument("--limit", type=float, default=600.0, help="time limit of a script in seconds")
    parser.add_argument("--scripts", type=Path, default=HERE, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
