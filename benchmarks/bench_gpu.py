"""A training step on a GPU: where its time goes, what makes it faster, and whether the loader keeps up.

    python benchmarks/bench_gpu.py [--model respike_r50] [--batch 32] [--minutes 7] [--json PATH] [--only PART ...]
    python benchmarks/bench_gpu.py --device cpu --model respike_tiny --size 64 --batch 2    # that every path works

Parts, in this order: `profile` (torch's profiler, kernels launched, FLOPs), `precision` (bf16 against fp32 and TF32),
`stepping` (forward, and forward and back, against the network run step by step, in bf16), `lif` (neurons against
SpikingJelly and snnTorch), `loader` (clips a second of 4 workers beside the training's), `levers` (one by one;
torch.compile last, since it takes minutes). What runs out of memory or fails is a row that says so. After `--minutes`
nothing more is begun, and what is left out is named. `--json` is written after every row. On a CPU the figures say
nothing but that it runs.
"""

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import torch

import bench_lif
import gpu_levers
import gpu_profile
import harness
from gpu_loader import measure_loader
from gpu_report import Report
from gpu_step import TrainingStep, Work, measure, single_precision
from gpu_stepping import compare_with_stepping

LIF_SHAPES = ((3, 64, 56, 56), (3, 512, 7, 7), (15, 64, 56, 56))


def main() -> None:
    """Go through the parts while there is time, then print the table."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    work = Work(
        model=arguments.model,
        size=arguments.size,
        batch=arguments.batch,
        frames=arguments.frames,
        stride=arguments.stride,
        device=arguments.device,
    )
    peak = gpu_profile.find_peak(arguments.peak_tflops)
    report = Report(work, arguments.json, peak_tflops=peak, deadline=time.monotonic() + 60 * arguments.minutes)
    with single_precision("fp32"):
        for name in arguments.only or PARTS:
            report.attempt(name, "", lambda name=name: PARTS[name](work, arguments, report))
    report.print_table()


def run_profile(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Profile the plain step; count its FLOPs, by which later rows tell their share of the peak."""
    if flops := report.attempt("profile", "FLOPs", lambda: gpu_profile.count_flops(work)):
        report.flops_per_clip = flops
        report.add("profile", "FLOPs", {"gflop_a_clip": round(flops / 1e9, 1)})
    figures = gpu_profile.profile_step(TrainingStep(work))
    gpu_profile.print_profile(figures)
    report.add("profile", "one update", figures)


def run_precision(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Measure the plain step in each precision."""
    for precision in ("bf16", "tf32", "fp32"):

        def run(precision: str = precision) -> dict[str, float]:
            with single_precision(precision):
                return measure(TrainingStep(work, precision), work.device, arguments.rounds)

        report.measure("precision", precision, run)


def run_stepping(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Compare with the network run step by step."""
    for title in ("forward", "forward and backward"):

        def run(title: str = title) -> None:
            report.keep("stepping", compare_with_stepping(work, title, arguments.rounds))

        report.attempt("stepping", title, run)


def run_lif(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Compare the neurons with the peers', at the network's largest and smallest map, and over many steps."""
    found, left_out = harness.find_peers(bench_lif.PEERS)
    groups = work.batch * work.frames // work.stride
    for steps, *shape in LIF_SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            shape = shape if work.device == "cuda" else [min(side, 8) for side in shape]

            def run(steps: int = steps, shape: list[int] = shape, dtype: torch.dtype = dtype) -> None:
                current = torch.randn(steps, groups, *shape, device=work.device, dtype=dtype) + 0.5
                report.keep("lif", bench_lif.compare(current, arguments.rounds, found, left_out))

            report.attempt("lif", f"{[steps, groups, *shape]} {dtype}", run)


def run_loader(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Measure the loader alone."""
    seconds, num_names = (15.0, 16) if work.device == "cuda" else (0.5, 1)
    figures = measure_loader(
        batch=work.batch, size=work.size, workers=arguments.workers, seconds=seconds, num_names=num_names
    )
    if training := report.rate_of("precision", "bf16"):
        figures["times_training_in_bf16"] = round(figures["clips_per_second"] / training, 2)
    report.add("loader", f"{arguments.workers} workers", figures)


def run_levers(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Pull one lever after the other, each on a step of its own."""
    levers = gpu_levers.all_levers(arguments.compile_backend)
    for name, lever in levers.items():
        if arguments.levers and name not in arguments.levers:
            continue

        def run(lever: gpu_levers.Lever = lever) -> dict[str, float]:
            return measure(lever(TrainingStep(work)), work.device, arguments.rounds)

        try:
            report.measure("levers", name, run)
        finally:
            gpu_levers.put_back()
            gc.collect()


PARTS: dict[str, Callable[[Work, argparse.Namespace, Report], Any]] = {
    "profile": run_profile,
    "precision": run_precision,
    "stepping": run_stepping,
    "lif": run_lif,
    "loader": run_loader,
    "levers": run_levers,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained, where, and how long."""
    parser.add_argument("--model", default="respike_r50")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=32, help="clips")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--workers", type=int, default=4, help="of the loader")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which nothing more is begun")
    parser.add_argument("--peak-tflops", type=float, help="of the chip in bf16  [default: by its name]")
    parser.add_argument("--compile-backend", default="inductor", help="of torch.compile")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts")
    parser.add_argument("--levers", nargs="+", help="these levers, by name")
    parser.set_defaults(rounds=10)


if __name__ == "__main__":
    main()
