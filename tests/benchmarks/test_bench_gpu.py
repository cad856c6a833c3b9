"""The benchmark for GPUs, rehearsed on the CPU: every part gives rows, and what cannot run is a row, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_isolated import run_apart  # noqa: E402
from gpu_profile import summarise  # noqa: E402
from gpu_wheels import requirements  # noqa: E402

# the rehearsal takes 100 s, and four times as long on a busy machine
pytestmark = pytest.mark.timeout(900)

LEVERS = ["plain", "torch's order", "fused LIF", "checkpointing", "CUDA graph", "fused LIF + compile"]
TINY = ["--device", "cpu", "--model", "respike_tiny", "--size", "64", "--batch", "2", "--rounds", "1"]
TINY += ["--workers", "1", "--updates", "2", "--compile-backend", "eager"]
PARTS = ["check", "profile", "levers", "sizes", "precision", "curves", "stepping", "lif", "loader", "graphs", "compile"]


def rehearse(folder, *options):
    path = folder / "gpu.json"
    command = [sys.executable, "benchmarks/bench_gpu.py", *TINY, "--json", str(path), *options]
    # threads that wait for each other on a busy machine take many times as long
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stderr
    return json.loads(path.read_text()), run.stdout


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    return rehearse(tmp_path_factory.mktemp("gpu"), "--only", *PARTS, "--levers", *LEVERS)


def rows_of(content, part):
    return {row["name"]: row for row in content["rows"] if row["part"] == part}


def test_every_part_gives_figures(rehearsal):
    content, _ = rehearsal
    assert rows_of(content, "profile")["FLOPs"]["gflop_a_clip"] > 0.5
    operators = rows_of(content, "profile")["one update"]["operators"]
    assert any("convolution" in row["name"] for row in operators)
    assert all(row["clips_per_second"] > 0 for row in rows_of(content, "precision").values())
    assert list(rows_of(content, "sizes")) == [
        "2 clips a batch",
        "1 clips a batch",
        "4 clips a batch",
        "8 clips a batch",
    ]
    assert all(row["last_loss"] > 0 for row in rows_of(content, "curves").values())
    assert rows_of(content, "loader")["1 workers"]["clips_per_second"] > 0
    assert {row["part"] for row in content["rows"]} == set(PARTS) - {"stepping", "lif"}
    titles = [comparison["benchmark"] for comparison in content["comparisons"]]
    assert titles[:2] == ["respike_tiny forward, bf16", "respike_tiny forward and backward, bf16"]
    assert titles.count("LIF forward and backward") == 6


def test_a_lever_that_cannot_be_pulled_is_a_row(rehearsal):
    content, printed = rehearsal
    levers = {name: row for part in ("levers", "graphs", "compile") for name, row in rows_of(content, part).items()}
    assert set(levers) == set(LEVERS)
    failed = {name for name, row in levers.items() if "failed" in row}
    assert failed == {name for name in LEVERS if "fused" in name or "graph" in name}
    assert printed.count("works on CUDA alone, not on cpu") >= len(failed)


def test_neurons_are_held_against_each_other(rehearsal):
    # on a CPU both are plain: equal in single precision, and not where one computes in half
    found = rows_of(rehearsal[0], "check")["neurons"]
    assert found["cases"] == 23
    assert found["gradient_off_float32"] == 0
    assert found["gradient_off_bfloat16"] > 0.01
    assert found["wrong"]
    assert not any("float32" in line for line in found["wrong"])
    assert found["tells_another_threshold_apart"]


def test_a_network_that_differs_is_measured(rehearsal):
    found = rows_of(rehearsal[0], "check")["network"]
    assert found["plain fp32, again"]["gradient"] < 1e-3 < found["plain bf16"]["logits"]


def test_figures_of_a_cpu_are_marked_as_a_rehearsal(rehearsal):
    content, printed = rehearsal
    assert content["facts"]["is_rehearsal"]
    assert "a rehearsal on the CPU" in printed


def test_what_there_is_no_time_for_is_named(tmp_path):
    content, _ = rehearse(tmp_path, "--minutes", "0", "--only", "precision", "loader")
    assert [row["failed"] for row in content["rows"]] == ["no time was left; see --minutes and --only"] * 2


@pytest.mark.slow
def test_the_command_is_trained_with(tmp_path):
    content, _ = rehearse(tmp_path, "--only", "train")
    row = rows_of(content, "train")["LIF by torch"]
    assert row["clips_per_second"] > 0
    assert len(row["losses"]) == 3


def test_a_part_that_hangs_is_ended_and_its_rows_are_kept(tmp_path):
    script = tmp_path / "part.py"
    script.write_text(
        "import sys, time, pathlib\n"
        'pathlib.Path(sys.argv[-1]).write_text(\'{"rows": [1], "comparisons": []}\')\n'
        "time.sleep(100 if 'hang' in sys.argv else 0)\n"
        "sys.exit(3)\n"
    )
    assert run_apart(script, ["hang"], 3) == ({"rows": [1], "comparisons": []}, "took longer than 3 s")
    assert run_apart(script, [], 60) == ({"rows": [1], "comparisons": []}, "the process ended with 3")


def test_a_trace_is_summed_up_by_kernel_and_kind():
    events = [
        {"name": "sm90_xmma_fprop_implicit_gemm_bf16", "ts": 0, "dur": 3000},
        {"name": "sm90_xmma_fprop_implicit_gemm_bf16", "ts": 2000, "dur": 2000},
        {"name": "_backward_kernel", "ts": 6000, "dur": 1000},
    ]
    found = summarise(events, 10.0)
    assert found["busy_ms"] == 5.0
    assert found["idle_share"] == 0.5
    assert found["kinds"] == {"convolutions": 5.0, "fused neurons": 1.0}
    assert found["kernels"][0]["calls"] == 2


def test_the_wheels_have_the_versions_of_the_constraints():
    assert requirements("av==18.1.0\nLoguru==0.7.3\n")[:2] == ["av==18.1.0", "zstandard"]
