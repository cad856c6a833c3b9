"""Where a training step's time goes: torch's profiler by operator, kernels launched, FLOPs by torch's counter."""

import re
import time
from typing import Any

import torch
from respike.zoo.nn.fusion import plain_attention
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gpu_step import TrainingStep, Work, finish

NUM_ROWS = 25
_LAUNCH = re.compile(r"cu(da)?LaunchKernel|cudaGraphLaunch")
# dense bf16 products with single-precision sums, TFLOP/s, by NVIDIA's data sheets
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


def profile_step(step: TrainingStep) -> dict[str, Any]:
    """Profile one update: the operators by their own time on the device, the kernels launched."""
    device = step.work.device
    for _ in range(3):
        step()
    finish(device)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=kinds) as recorded:
        started = time.perf_counter()
        step()
        finish(device)
        wall = time.perf_counter() - started
    rows = recorded.key_averages()
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    whole = "device_time_total" if device == "cuda" else "cpu_time_total"
    operators = [row for row in rows if row.device_type == torch.autograd.DeviceType.CPU]
    spent = sum(getattr(row, own) for row in operators) or 1
    operators.sort(key=lambda row: getattr(row, own), reverse=True)
    launches = sum(row.count for row in rows if _LAUNCH.match(row.key))
    neurons = sum(getattr(row, whole) for row in operators if row.key in _NEURONS)
    return {
        "wall_ms": round(wall * 1e3, 2),
        "device_ms": round(spent / 1e3, 2),
        "kernels_launched": launches if device == "cuda" else None,
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


_NEURONS = ("_IntegrateAndFire", "_IntegrateAndFireBackward", "respike::lif", "respike::lif_backward")


def print_profile(figures: dict[str, Any]) -> None:
    """Print the table."""
    launched = figures["kernels_launched"]
    print(f"one update, profiled: {figures['wall_ms']:.1f} ms, {figures['device_ms']:.1f} ms of work", end="")
    print(f", {launched} kernels launched" if launched is not None else "", end="")
    print(f", neurons {figures['neurons_share']:.0%}")
    print(f"{'operator':56}{'calls':>7}{'ms':>10}{'share':>8}")
    for row in figures["operators"]:
        print(f"{row['name'][:55]:56}{row['calls']:>7}{row['ms']:>10.2f}{row['share']:>8.1%}")
    print(flush=True)


def count_flops(work: Work) -> float:
    """FLOPs of one clip's way forward and back, as torch's counter has them: convolutions and products alone."""
    one = TrainingStep(Work(**(vars(work) | {"batch": 1})), "fp32")
    counter = FlopCounterMode(display=False)
    # one group of residuals may leave a norm one value a channel, which training refuses
    one.model.eval()
    with counter, plain_attention():
        one.go_back()
    return float(counter.get_total_flops())


def find_peak(given: float | None) -> float | None:
    """The chip's peak in TFLOP/s: as given, or by its name; None where that is unknown."""
    if given or not torch.cuda.is_available():
        return given
    name = torch.cuda.get_device_name()
    return next((peak for chip, peak in PEAK_TFLOPS.items() if chip in name), None)
