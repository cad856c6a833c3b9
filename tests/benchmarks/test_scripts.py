"""The benchmarks and studies fit the library: they can be imported, and the benchmarks run with few rounds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def run(*arguments, cwd):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.slow
def test_every_script_can_be_imported(tmp_path):
    done = run("-c", f"import {', '.join(SCRIPTS)}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_benchmark_runs_on_the_cpu(tmp_path):
    benchmarks = [name for name in SCRIPTS if name.startswith("bench_") and name != "bench_gpu"]
    script = str(ROOT / "benchmarks" / "run_all.py")
    done = run(script, "--out", str(tmp_path / "bench"), "--only", *benchmarks, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
