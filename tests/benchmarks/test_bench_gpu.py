"""The GPU benchmark on a CPU: every part gives rows, and a part that cannot run gives a row with the reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_profile import summarise_trace  # noqa: E402
from gpu_subprocess import run_in_subprocess  # noqa: E402
from gpu_wheels import requirements  # noqa: E402

# the run takes 100 s, on a busy machine four times as long
pytestmark = pytest.mark.timeout(900)

VARIANTS = ["plain", "contiguous", "fused LIF", "checkpointing", "CUDA graph", "fused LIF + compile"]
TINY = ["--device", "cpu", "--model", "respike_tiny", "--size", "64", "--batch", "2", "--rounds", "1"]
TINY += ["--workers", "1", "--updates", "2", "--compile-backend", "eager"]
PARTS = ["check", "profile", "variants", "sizes", "precision", "curves", "stepping", "lif", "loader"]
PARTS += ["graphs", "compile"]


def run_on_cpu(folder, *options):
    path = folder / "gpu.json"
    command = [sys.executable, "benchmarks/bench_gpu.py", *TINY, "--json", str(path), *options]
    # several threads on a busy machine wait for each other
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stderr
    return json.loads(path.read_text()), run.stdout


@pytest.fixture(scope="module")
def cpu_run(tmp_path_factory):
    return run_on_cpu(tmp_path_factory.mktemp("gpu"), "--only", *PARTS, "--variants", *VARIANTS)


def rows_of(content, part):
    return {row["name"]: row for row in content["rows"] if row["part"] == part}


@pytest.mark.slow
def test_every_part_gives_figures(cpu_run):
    content, _ = cpu_run
    assert rows_of(content, "profile")["FLOPs"]["gflop_a_clip"] > 0.5
    operators = rows_of(content, "profile")["one update"]["operators"]
    # the full name depends on the processor, such as mkldnn_convolution or _slow_conv2d_backward
    assert any("conv" in row["name"] for row in operators)
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


@pytest.mark.slow
def test_a_variant_that_cannot_run_is_a_row_with_the_reason(cpu_run):
    content, printed = cpu_run
    variants = {name: row for part in ("variants", "graphs", "compile") for name, row in rows_of(content, part).items()}
    assert set(variants) == set(VARIANTS)
    failed = {name for name, row in variants.items() if "failed" in row}
    assert failed == {name for name in VARIANTS if "fused" in name or "graph" in name}
    assert printed.count("needs CUDA, the device is cpu") >= len(failed)


@pytest.mark.slow
def test_fused_and_plain_neurons_are_compared(cpu_run):
    # on a CPU both are plain: equal in single precision, different in half precision
    found = rows_of(cpu_run[0], "check")["neurons"]
    assert found["cases"] == 23
    assert found["gradient_error_float32"] == 0
    assert found["gradient_error_bfloat16"] > 0.01
    assert found["wrong"]
    assert not any("float32" in line for line in found["wrong"])
    assert found["detects_another_threshold"]


@pytest.mark.slow
def test_the_difference_of_the_networks_is_measured(cpu_run):
    found = rows_of(cpu_run[0], "check")["network"]
    assert found["plain fp32, again"]["gradient"] < 1e-3 < found["plain bf16"]["logits"]


@pytest.mark.slow
def test_figures_of_a_cpu_are_marked_as_a_dry_run(cpu_run):
    content, printed = cpu_run
    assert content["facts"]["is_dry_run"]
    assert "dry run on the CPU" in printed


@pytest.mark.slow
def test_parts_without_time_left_are_named(tmp_path):
    content, _ = run_on_cpu(tmp_path, "--minutes", "0", "--only", "precision", "loader")
    assert [row["failed"] for row in content["rows"]] == ["no time was left; see --minutes and --only"] * 2


@pytest.mark.slow
def test_the_train_part_runs_respike_train(tmp_path):
    content, _ = run_on_cpu(tmp_path, "--only", "train")
    row = rows_of(content, "train")["LIF by torch"]
    assert row["clips_per_second"] > 0
    assert len(row["losses"]) == 3


@pytest.mark.slow
def test_a_part_that_hangs_is_killed_and_its_rows_are_kept(tmp_path):
    script = tmp_path / "part.py"
    script.write_text(
        "import sys, time, pathlib\n"
        'pathlib.Path(sys.argv[-1]).write_text(\'{"rows": [1], "comparisons": []}\')\n'
        "time.sleep(100 if 'hang' in sys.argv else 0)\n"
        "sys.exit(3)\n"
    )
    assert run_in_subprocess(script, ["hang"], 3) == ({"rows": [1], "comparisons": []}, "took longer than 3 s")
    assert run_in_subprocess(script, [], 60) == ({"rows": [1], "comparisons": []}, "the process ended with exit code 3")


def test_a_trace_is_summed_by_kernel_and_kind():
    events = [
        {"name": "sm90_xmma_fprop_implicit_gemm_bf16", "ts": 0, "dur": 3000},
        {"name": "sm90_xmma_fprop_implicit_gemm_bf16", "ts": 2000, "dur": 2000},
        {"name": "_backward_kernel", "ts": 6000, "dur": 1000},
    ]
    found = summarise_trace(events, 10.0)
    assert found["busy_ms"] == 5.0
    assert found["idle_share"] == 0.5
    assert found["kinds"] == {"convolutions": 5.0, "fused neurons": 1.0}
    assert found["kernels"][0]["calls"] == 2


def test_wheels_have_the_versions_in_constraints_txt():
    assert requirements("av==18.1.0\nLoguru==0.7.3\n")[:2] == ["av==18.1.0", "zstandard"]
