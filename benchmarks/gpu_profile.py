"""Profile of a training step: time of operators and kernels (torch.profiler), idle time, FLOPs (torch's counter)."""

import gzip
import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from respike.zoo.nn.fusion import plain_attention
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gpu_step import TrainingStep, Work, finish, measure

NUM_ROWS = 30
_LAUNCH = re.compile(r"cu(da)?LaunchKernel|cudaGraphLaunch")
# categories of trace events during which the GPU is busy
_BUSY = {"kernel", "gpu_memcpy", "gpu_memset"}
# kinds of kernels by their names; the first match counts
_KINDS = {
    "attention": r"flash|fmha|attention",
    "batch norm": r"batch_?norm|bn_(fw|bw)|bnorm",
    "fused neurons": r"^_(forward|backward)_kernel",
    "convolutions": r"conv|fprop|dgrad|wgrad|winograd",
    "matrix products": r"gemm|cutlass|nvjet|xmma",
    "layout changes and copies": r"nchwToNhwc|nhwcToNchw|copy|Memcpy|Memset|CatArray",
    "other norms": r"norm",
    "optimiser": r"multi_tensor",
    "sums": r"reduce",
    "elementwise": r"elementwise|vectorized",
}
# TFLOP/s of dense bf16 matrix products with single-precision accumulation, from the data sheets of NVIDIA
PEAK_TFLOPS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
}
_NEURONS = ("_IntegrateAndFire", "_IntegrateAndFireBackward", "respike::lif", "respike::lif_backward")


def profile_step(step: TrainingStep, trace: Path | None = None) -> dict[str, Any]:
    """Profile one update: time of operators and kernels on the device, and the share of time that it is idle.

    The time of an update is measured without the profiler, which slows the CPU down. `trace` is a file for the complete
    Chrome trace.
    """
    device = step.work.device
    seconds = measure(step, device, rounds=5, num_warm=3)["seconds"]
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=kinds) as recorded:
        step()
        finish(device)
    rows = recorded.key_averages()
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    whole = "device_time_total" if device == "cuda" else "cpu_time_total"
    operators = [row for row in rows if row.device_type == torch.autograd.DeviceType.CPU]
    spent = sum(getattr(row, own) for row in operators) or 1
    operators.sort(key=lambda row: getattr(row, own), reverse=True)
    neurons = sum(getattr(row, whole) for row in operators if row.key in _NEURONS)
    figures = {
        "wall_ms": round(seconds * 1e3, 2),
        "device_ms": round(spent / 1e3, 2),
        "neurons_share": round(neurons / spent, 4),
        "operators": [
            {
                "name": row.key,
                "calls": row.count,
                "ms": round(getattr(row, own) / 1e3, 3),
                "share": round(getattr(row, own) / spent, 4),
            }
            for row in operators[:NUM_ROWS]
        ],
    }
    if device == "cuda":
        figures["kernels_launched"] = sum(row.count for row in rows if _LAUNCH.match(row.key))
        figures |= _read_trace(recorded, seconds, trace)
    return figures


def _read_trace(recorded: Any, seconds: float, trace: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "trace.json"
        recorded.export_chrome_trace(str(path))
        content = path.read_bytes()
    if trace is not None:
        trace.write_bytes(gzip.compress(content))
    events = [event for event in json.loads(content)["traceEvents"] if event.get("cat") in _BUSY]
    return summarise_trace(events, seconds * 1e3)


def summarise_trace(events: list[dict[str, Any]], wall_ms: float) -> dict[str, Any]:
    """Sum up the kernels and copies of a trace (`name`, `ts` and `dur` in µs) by name and kind, with the idle share."""
    busy = union_length((event["ts"], event["ts"] + event["dur"]) for event in events) / 1e3
    by_name: dict[str, list[float]] = defaultdict(list)
    by_kind: dict[str, float] = defaultdict(float)
    for event in events:
        by_name[event["name"]].append(event["dur"] / 1e3)
        by_kind[kind_of(event["name"])] += event["dur"] / 1e3
    longest = sorted(by_name.items(), key=lambda item: sum(item[1]), reverse=True)[:NUM_ROWS]
    return {
        "busy_ms": round(busy, 2),
        "idle_share": round(max(0.0, 1 - busy / wall_ms), 4),
        "kinds": {kind: round(ms, 2) for kind, ms in sorted(by_kind.items(), key=lambda item: -item[1])},
        "kernels": [
            {
                "name": name,
                "calls": len(times),
                "ms": round(sum(times), 3),
                "median_us": round(statistics.median(times) * 1e3, 1),
            }
            for name, times in longest
        ],
    }


def union_length(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of the spans (start, end)."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel from its name."""
    return next((kind for kind, names in _KINDS.items() if re.search(names, kernel, re.IGNORECASE)), "other")


def print_profile(figures: dict[str, Any]) -> None:
    """Print the tables of a profile."""
    print(f"one update: {figures['wall_ms']:.1f} ms, neurons {figures['neurons_share']:.0%}", end="")
    if "busy_ms" in figures:
        print(f"; GPU busy {figures['busy_ms']:.1f} ms, idle {figures['idle_share']:.0%}", end="")
        print(f", {figures['kernels_launched']} kernels launched")
        print(", ".join(f"{kind} {ms} ms" for kind, ms in figures["kinds"].items()), end="")
    print(f"\n{'operator':80}{'calls':>7}{'ms':>10}{'share':>8}")
    for row in figures["operators"]:
        print(f"{row['name'][:79]:80}{row['calls']:>7}{row['ms']:>10.2f}{row['share']:>8.1%}")
    for row in figures.get("kernels", []):
        print(f"{row['name'][:79]:80}{row['calls']:>7}{row['ms']:>10.2f}")
    print(flush=True)


def count_flops(work: Work) -> float:
    """Return the FLOPs of forward and backward of one clip. torch counts convolutions and matrix products only."""
    one = TrainingStep(Work(**(vars(work) | {"batch": 1})), "fp32")
    counter = FlopCounterMode(display=False)
    # with one clip a batch norm may get one value for each channel, which fails in training mode
    one.model.eval()
    with counter, plain_attention():
        one.forward_backward()
    return float(counter.get_total_flops())


def measure_matmul(device: str, side: int = 8192) -> float:
    """Return the TFLOP/s of a product of two random square bf16 matrices: the practical peak of the GPU."""
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = measure(lambda: torch.mm(one, other), device, rounds=20, num_warm=5)["seconds"]
    return 2 * side**3 / seconds / 1e12


def find_peak(given: float | None) -> float | None:
    """Return the peak of the GPU in TFLOP/s: the given one, or by its name, or None if it is unknown."""
    if given or not torch.cuda.is_available():
        return given
    name = torch.cuda.get_device_name()
    return next((peak for chip, peak in PEAK_TFLOPS.items() if chip in name), None)
