"""The benchmark for GPUs, rehearsed on the CPU: every part gives rows, and what cannot run is a row, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEVERS = [
    "plain",
    "torch's order",
    "fused LIF",
    "checkpointing",
    "CUDA graph",
    "fused LIF + cuDNN tries + graph",
    "compile",
]
TINY = ["--device", "cpu", "--model", "respike_tiny", "--size", "64", "--batch", "2", "--rounds", "1"]


def rehearse(folder, *options):
    path = folder / "gpu.json"
    command = [sys.executable, "benchmarks/bench_gpu.py", *TINY, "--json", str(path), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stderr
    return json.loads(path.read_text()), run.stdout


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    options = ["--workers", "1", "--compile-backend", "eager", "--levers", *LEVERS]
    return rehearse(tmp_path_factory.mktemp("gpu"), *options)


def rows_of(content, part):
    return {row["name"]: row for row in content["rows"] if row["part"] == part}


def test_every_part_gives_figures(rehearsal):
    content, _ = rehearsal
    assert rows_of(content, "profile")["FLOPs"]["gflop_a_clip"] > 0.5
    operators = rows_of(content, "profile")["one update"]["operators"]
    assert any("convolution_backward" in row["name"] for row in operators)
    assert all(row["clips_per_second"] > 0 for row in rows_of(content, "precision").values())
    assert rows_of(content, "loader")["1 workers"]["times_training_in_bf16"] > 0
    titles = [comparison["benchmark"] for comparison in content["comparisons"]]
    assert titles[:2] == ["respike_tiny forward, bf16", "respike_tiny forward and backward, bf16"]
    assert titles.count("LIF forward and backward") == 6


def test_a_lever_that_cannot_be_pulled_is_a_row(rehearsal):
    content, printed = rehearsal
    levers = rows_of(content, "levers")
    assert set(levers) == set(LEVERS)
    failed = {name for name, row in levers.items() if "failed" in row}
    assert failed == {name for name in LEVERS if "fused" in name or "graph" in name}
    assert printed.count("works on CUDA alone, not on cpu") >= len(failed)


def test_figures_of_a_cpu_are_marked_as_a_rehearsal(rehearsal):
    content, printed = rehearsal
    assert content["facts"]["is_rehearsal"]
    assert "a rehearsal on the CPU" in printed


def test_what_there_is_no_time_for_is_named(tmp_path):
    content, _ = rehearse(tmp_path, "--minutes", "0", "--only", "precision", "loader")
    assert [row["failed"] for row in content["rows"]] == ["no time was left; see --minutes and --only"] * 2
