"""All benchmarks in one go, each in a process of its own: their figures in one folder, one table at the end.

    python benchmarks/run_all.py [--out bench] [--full] [--only NAME ...] [--limit 600]

Told are each script's own tables as they come, then every contender of all of them. A script that fails or takes longer
than `--limit` seconds is named and the others run all the same; the exit code is then 1. Rounds are few, so that all
takes about ten minutes on two cores; `--full` runs each script as it runs by itself. The GPU's benchmark is run where
there is a GPU.
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
# what makes a script's round short; a script that is not named here is short as it is
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
    """How a script went: `reason` is empty where it went well."""

    name: str
    seconds: float
    processor_seconds: float
    reason: str


def main() -> int:
    """Run the scripts one after the other; return the exit code."""
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
    """The benchmarks of a folder by name; the GPU's where there is a GPU, or it is asked for."""
    scripts = sorted(folder.glob("bench_*.py"))
    if only:
        known = {script.stem for script in scripts}
        if unknown := set(only) - known:
            sys.exit(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(sorted(known))}")
        return [script for script in scripts if script.stem in only]
    return [script for script in scripts if script.stem != "bench_gpu" or has_gpu()]


def has_gpu() -> bool:
    """Whether torch finds a GPU; False where there is no torch."""
    asked = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    return subprocess.run(asked, capture_output=True).returncode == 0


def run(script: Path, options: list[str], limit: float) -> Outcome:
    """Run a script to its end or limit; what it prints goes where ours goes, what it says meanwhile is kept back."""
    started, busy = time.perf_counter(), _processor_seconds()
    with subprocess.Popen(
        [sys.executable, str(script), *options], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, told = process.communicate(timeout=limit)
            last = next((line for line in reversed(told.splitlines()) if line.strip()), "")
            reason = f"exit code {process.returncode}: {last}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            # with the workers that it has started
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
    """Print every contender of every file, what was left out, and how long each script took; write `summary.json`."""
    print("== all together")
    print(f"{'':40}{'':30}{'wall ms':>12}{'CPU ms':>12}{'× faster':>10}  a")
    missing: set[str] = set()
    for comparison in read_comparisons(out):
        missing |= set(comparison["left_out"])
        for name, row in comparison["contenders"].items():
            wall, busy = (row[f"{kind}median_seconds"] * 1e3 for kind in ("", "processor_"))
            told = f"{comparison['benchmark'][:38]:40}{name[:28]:30}{wall:>12.2f}{busy:>12.2f}"
            print(f"{told}{row['processor_times_faster']:>10.2f}  {comparison['unit']}")
    for line in sorted(missing):
        print(f"left out: {line}")
    for outcome in outcomes:
        told = f"FAILED, {outcome.reason}" if outcome.reason else "done"
        print(f"{outcome.name:20}{outcome.seconds:>8.1f} s{outcome.processor_seconds:>8.1f} s of processors  {told}")
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes)} benchmarks in {seconds / 60:.1f} minutes; figures in {out}", flush=True)
    (out / "summary.json").write_text(json.dumps([vars(outcome) for outcome in outcomes], indent=2) + "\n")


def read_comparisons(out: Path) -> Iterator[dict[str, Any]]:
    """The harness's comparisons among the files of a folder."""
    for path in sorted(out.glob("*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            yield from content.get("comparisons", [content] if "contenders" in content else [])


def parse_arguments() -> argparse.Namespace:
    """What is run, and where its figures go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the JSON files")
    parser.add_argument("--full", action="store_true", help="as many rounds as each script makes by itself")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these scripts, such as bench_lif")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a script may take")
    parser.add_argument("--scripts", type=Path, default=HERE, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
