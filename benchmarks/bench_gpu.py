"""Time of a training step on a GPU: profile, faster variants, precision, loader.

    python benchmarks/bench_gpu.py [--model respike_r50] [--batch 32] [--minutes 7] [--json PATH] [--only PART ...]
    python benchmarks/bench_gpu.py --device cpu --model respike_tiny --size 64 --batch 2    # only tests that it runs

The parts, in this order:

- `check`: compares spikes and gradients of the fused neurons with those of the plain ones
- `profile`: torch's profiler: kernels by name, idle time, FLOPs
- `variants`: single changes to the step, such as fused neurons or gradient checkpointing
- `sizes`: several batch sizes
- `precision`: bf16, fp16, TF32, fp32
- `curves`: losses of short trainings on synthetic data in each precision
- `stepping`: the network compared with the one computed step by step, in bf16, forward, and forward and backward
- `lif`: the neurons compared with SpikingJelly and snnTorch
- `loader`: clips/s of loader workers
- `train`: `respike train` under torchrun
- `graphs`: CUDA graphs
- `compile`: torch.compile, which takes minutes

The last four run in separate processes with a time limit. If a measurement fails or runs out of memory, its row gives
the reason. After `--minutes` no new measurement starts; the rest is named. `--json` is written after every row. On a
CPU the run only tests that everything works; its times have no meaning.
"""

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import bench_lif
import gpu_check
import gpu_curves
import gpu_profile
import gpu_variants
import harness
from gpu_loader import measure_loader
from gpu_report import Report
from gpu_shards import make_shards
from gpu_step import TrainingStep, Work, measure, single_precision
from gpu_stepping import compare_with_stepping
from gpu_subprocess import run_in_subprocess
from gpu_train import measure_training

LIF_SHAPES = ((3, 64, 56, 56), (3, 512, 7, 7), (15, 64, 56, 56))
# time limits in seconds of the parts that run in separate processes
LIMITS = {"loader": 90, "train": 140, "graphs": 90, "compile": 180}


def main() -> None:
    """Run the parts until the time is used up, then print the table."""
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
    report.flops_per_clip = arguments.gflop_a_clip and 1e9 * arguments.gflop_a_clip
    with single_precision("fp32"):
        for name in arguments.only or PARTS:
            is_broken = work.device == "cuda" and not report.gpu_answers()
            if not arguments.inside and (name in LIMITS or is_broken):
                run_separately(name, report)
            else:
                report.attempt(name, "", partial(PARTS[name], work, arguments, report))
    if not arguments.inside:
        report.print_table()


def run_separately(name: str, report: Report) -> None:
    """Run one part in a separate process and add its rows."""
    seconds = min(LIMITS.get(name, 120), report.seconds_left)
    if seconds < 0:
        report.attempt(name, "", lambda: None)
        return
    if torch.cuda.is_available() and report.gpu_answers():
        torch.cuda.empty_cache()
    options = [*sys.argv[1:], "--minutes", str(seconds / 60), "--only", name]
    if report.flops_per_clip:
        options += ["--gflop-a-clip", str(report.flops_per_clip / 1e9)]
    content, reason = run_in_subprocess(Path(__file__), options, seconds + 15)
    report.add_all(content)
    if reason:
        report.add(name, "", {"failed": reason})


def run_check(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Compare the fused neurons with the plain ones."""

    def check_neurons() -> None:
        figures = gpu_check.check_neurons(work.device)
        report.add("check", "neurons", figures)
        for line in figures["wrong"]:
            print(f"  wrong: {line}", flush=True)

    report.attempt("check", "neurons", check_neurons)
    report.attempt("check", "network", lambda: report.add("check", "network", gpu_check.check_network(work)))


def run_profile(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Profile the plain step and the one with fused neurons. Count FLOPs for the share of the peak in later rows."""
    side = 8192 if work.device == "cuda" else 64
    if speed := report.attempt("profile", "matmul", lambda: gpu_profile.measure_matmul(work.device, side)):
        report.add("profile", "matmul", {"side": side, "bf16_tflops": round(speed, 1)})
    if flops := report.attempt("profile", "FLOPs", lambda: gpu_profile.count_flops(work)):
        report.flops_per_clip = flops
        report.add("profile", "FLOPs", {"gflop_a_clip": round(flops / 1e9, 1)})
    for title, change in (("one update", gpu_variants.plain), ("one update, fused LIF", gpu_variants.fused_lif)):

        def run(title: str = title, change: gpu_variants.Change = change) -> None:
            step = TrainingStep(work)
            change(step)
            figures = gpu_profile.profile_step(step, arguments.trace if change is gpu_variants.plain else None)
            gpu_profile.print_profile(figures)
            report.add("profile", title, figures)

        report.attempt("profile", title, run)


def run_variants(part: str, work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Measure each variant of `part` on a new training step."""
    for name, change in gpu_variants.make_variants(arguments.compile_backend)[part].items():
        if arguments.variants and name not in arguments.variants:
            continue

        def run(change: gpu_variants.Change = change) -> dict[str, float]:
            return measure(change(TrainingStep(work)), work.device, arguments.rounds)

        try:
            report.measure(part, name, run)
        finally:
            gpu_variants.reset_torch()
            gc.collect()


def run_sizes(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Measure the step with 1, 1/4, 2 and 4 times the batch size, on CUDA with fused neurons."""
    for batch in dict.fromkeys(max(1, int(work.batch * factor)) for factor in (1, 0.25, 2, 4)):

        def run(batch: int = batch) -> dict[str, float]:
            step = TrainingStep(replace(work, batch=batch))
            if work.device == "cuda":
                gpu_variants.fused_lif(step)
            return measure(step, work.device, min(arguments.rounds, 5))

        report.measure("sizes", f"{batch} clips a batch", run, num_clips=batch)


def run_precision(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Measure the plain step in each precision."""
    for precision in ("bf16", "fp16", "tf32", "fp32"):
        if precision == "fp16" and work.device == "cpu":
            continue

        def run(precision: str = precision) -> dict[str, float]:
            with single_precision(precision):
                return measure(TrainingStep(work, precision), work.device, arguments.rounds)

        report.measure("precision", precision, run)


def run_curves(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Train shortly in each precision."""
    small = replace(work, size=min(work.size, 112))
    for name, (precision, *_) in gpu_curves.VARIANTS.items():
        if precision == "fp16" and work.device == "cpu":
            continue

        def run(name: str = name) -> None:
            report.add("curves", name, gpu_curves.train(small, name, arguments.updates))

        report.attempt("curves", name, run)


def run_stepping(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Compare with the network computed step by step."""
    for title in ("forward", "forward and backward"):

        def run(title: str = title) -> None:
            report.add_comparison("stepping", compare_with_stepping(work, title, arguments.rounds))

        report.attempt("stepping", title, run)


def run_lif(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Compare the neurons with peers: the largest and the smallest feature maps of the network, and many steps."""
    found, left_out = harness.find_peers(bench_lif.PEERS)
    groups = work.batch * work.frames // work.stride
    for steps, *shape in LIF_SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            shape = shape if work.device == "cuda" else [min(side, 8) for side in shape]

            def run(steps: int = steps, shape: list[int] = shape, dtype: torch.dtype = dtype) -> None:
                current = torch.randn(steps, groups, *shape, device=work.device, dtype=dtype) + 0.5
                report.add_comparison("lif", bench_lif.compare(current, arguments.rounds, found, left_out))

            report.attempt("lif", f"{[steps, groups, *shape]} {dtype}", run)


def run_loader(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Measure the loader without a network."""
    seconds = 8.0 if work.device == "cuda" else 0.5
    for workers in arguments.workers:

        def run(workers: int = workers) -> None:
            figures = measure_loader(
                batch=work.batch, size=work.size, workers=workers, seconds=seconds, video=arguments.video
            )
            report.add("loader", f"{workers} workers", figures)

        report.attempt("loader", f"{workers} workers", run)


def run_train(work: Work, arguments: argparse.Namespace, report: Report) -> None:
    """Run `respike train` with plain and with fused neurons."""
    # a video has 11 clips: about 60 updates an epoch, on a CPU two
    num_names = max(4, 60 * work.batch // 11) if work.device == "cuda" else 4
    amp = ["--amp", "bf16"] if work.device == "cuda" else []
    with tempfile.TemporaryDirectory() as scratch:
        cores = min(8, os.cpu_count() or 1)
        shards = make_shards(Path(scratch), arguments.video, num_names=num_names, num_workers=cores)
        for backend in ("triton", "torch") if work.device == "cuda" else ("torch",):

            def run(backend: str = backend) -> None:
                figures = measure_training(
                    work,
                    shards,
                    options=[*amp, "--lif-backend", backend],
                    workers=arguments.workers[-1],
                    seconds=max(30.0, report.seconds_left),
                )
                report.add("train", f"LIF by {backend}", figures)

            report.attempt("train", f"LIF by {backend}", run)


PARTS: dict[str, Callable[[Work, argparse.Namespace, Report], Any]] = {
    "check": run_check,
    "profile": run_profile,
    "variants": partial(run_variants, "variants"),
    "sizes": run_sizes,
    "precision": run_precision,
    "curves": run_curves,
    "stepping": run_stepping,
    "lif": run_lif,
    "loader": run_loader,
    "train": run_train,
    "graphs": partial(run_variants, "graphs"),
    "compile": partial(run_variants, "compile"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--model", default="respike_r50")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images in pixels")
    parser.add_argument("--batch", type=int, default=32, help="clips a batch")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[4, 8],
        help="numbers of loader workers; the last one is used for training",
    )
    parser.add_argument("--updates", type=int, default=80, help="updates of each loss curve")
    parser.add_argument("--video", type=Path, help="video for loader and training  [default: a synthetic one]")
    parser.add_argument("--trace", type=Path, help="file for the trace of the profile (.json.gz)")
    parser.add_argument("--minutes", type=float, default=7.0, help="start no new measurement after this time")
    parser.add_argument("--peak-tflops", type=float, help="peak of the GPU in bf16  [default: from its name]")
    parser.add_argument("--compile-backend", default="inductor", help="backend of torch.compile")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="run only these parts")
    parser.add_argument("--variants", nargs="+", help="run only these variants, by name")
    # options for a part that runs in a separate process
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--gflop-a-clip", type=float, help=argparse.SUPPRESS)
    parser.set_defaults(rounds=10)


if __name__ == "__main__":
    main()
