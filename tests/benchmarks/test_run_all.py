"""`run_all.py`: a benchmark that fails does not stop the others and is named at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN_ALL = Path(__file__).parents[2] / "benchmarks" / "run_all.py"
FIGURES = {"median_seconds": 0.002, "processor_median_seconds": 0.001, "processor_times_faster": 1.5}
COMPARISON = {"benchmark": "sorting", "unit": "list", "variants": {"quicksort": FIGURES}, "left_out": ["peer: missing"]}
GOOD = f"""
import pathlib, sys
print("its own table")
pathlib.Path(sys.argv[sys.argv.index("--json") + 1]).write_text('{json.dumps(COMPARISON)}')
"""


@pytest.fixture
def scripts(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name, code in (("a", "raise SystemExit('no data')"), ("b", "import time; time.sleep(60)"), ("c", GOOD)):
        (folder / f"bench_{name}.py").write_text(code)
    (folder / "study.py").write_text("raise SystemExit('not a benchmark')")
    return folder


def run_all(scripts, *options):
    out = scripts.parent / "out"
    command = [sys.executable, str(RUN_ALL), "--scripts", str(scripts), "--out", str(out), "--limit", "2", *options]
    run = subprocess.run(command, capture_output=True, text=True)
    return run, out


def test_failed_and_slow_scripts_are_named_and_the_rest_runs(scripts):
    run, out = run_all(scripts)
    assert run.returncode == 1
    assert "FAILED bench_a: exit code 1: no data" in run.stdout
    assert "FAILED bench_b: took longer than 2 s" in run.stdout
    summary = run.stdout.partition("== all benchmarks")[2]
    assert "quicksort" in summary
    assert "not measured: peer: missing" in summary
    outcomes = json.loads((out / "summary.json").read_text())
    assert [bool(outcome["reason"]) for outcome in outcomes] == [True, True, False]


def test_the_exit_code_is_zero_if_all_scripts_succeed(scripts):
    run, out = run_all(scripts, "--only", "bench_c")
    assert run.returncode == 0, run.stderr
    assert "its own table" in run.stdout
    assert sorted(path.name for path in out.iterdir()) == ["bench_c.json", "summary.json"]


def test_an_unknown_name_lists_the_choices(scripts):
    run, _ = run_all(scripts, "--only", "bench_z")
    assert run.returncode == 1
    assert "unknown benchmarks: bench_z; choose from bench_a, bench_b, bench_c" in run.stderr
