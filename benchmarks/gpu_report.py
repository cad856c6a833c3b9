"""Rows of the GPU benchmark: written to a file after each measurement, printed as a table; failures are rows too."""

import gc
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import harness
from gpu_step import Work

# columns that do not fit on a line
_LONG = ("part", "name", "operators", "kernels", "curve")
_COLUMNS = ("ms", "× faster", "clips/s", "of peak", "GB", "first s")


class Report:
    """Collects rows by part and name. `flops_per_clip` and `peak_tflops` (None: unknown) give shares of the peak."""

    def __init__(self, work: Work, path: Path | None, *, peak_tflops: float | None, deadline: float) -> None:
        self.flops_per_clip: float | None = None
        self._work, self._path, self._peak, self._deadline = work, path, peak_tflops, deadline
        self._rows: list[dict[str, Any]] = []
        self._comparisons: list[Mapping[str, Any]] = []
        self._baselines: dict[str, float] = {}

    @property
    def seconds_left(self) -> float:
        """Seconds until no new measurement starts."""
        return self._deadline - time.monotonic()

    def attempt(self, part: str, name: str, run: Callable[[], Any]) -> Any:
        """Call `run` and return its result. If it fails, or if no time is left, add a row with the reason."""
        if self.seconds_left < 0:
            self.add(part, name, {"failed": "no time was left; see --minutes and --only"})
            return None
        try:
            if self.gpu_answers():
                torch.cuda.reset_peak_memory_stats()
            return run()
        # out of memory, a compiler error or a missing package must not end the other measurements
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            self.add(part, name, {"failed": f"{type(error).__name__}: {reason}"[:200]})
            return None
        finally:
            gc.collect()
            if self.gpu_answers():
                torch.cuda.empty_cache()

    def gpu_answers(self) -> bool:
        """Return whether there is a GPU and this process can still use it. Some errors break the CUDA context."""
        if not torch.cuda.is_available():
            return False
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
        return True

    def measure(self, part: str, name: str, run: Callable[[], dict[str, float]], num_clips: int | None = None) -> None:
        """Add the figures of one update that `run` measured. The first row of a part is the baseline of the others.

        An update takes a batch, or `num_clips`. Rates are clips/s.
        """
        if figures := self.attempt(part, name, run):
            rate = (num_clips or self._work.batch) / figures["seconds"]
            self.add(part, name, figures | self._derive(part, rate))

    def _derive(self, part: str, rate: float) -> dict[str, float]:
        derived = {"clips_per_second": round(rate, 2)}
        derived["times_faster"] = round(rate / self._baselines.setdefault(part, rate), 3)
        if self.flops_per_clip and self._peak:
            derived["share_of_peak"] = round(self.flops_per_clip * rate / (self._peak * 1e12), 4)
        return derived

    def rate_of(self, part: str, name: str) -> float | None:
        """Return clips/s of a row, or None if there is no such row."""
        rows = (row for row in self._rows if (row["part"], row["name"]) == (part, name))
        return next((row.get("clips_per_second") for row in rows), None)

    def add(self, part: str, name: str, figures: Mapping[str, Any]) -> None:
        """Add a row and print it."""
        self._rows.append({"part": part, "name": name, **figures})
        print(_line(self._rows[-1]), flush=True)
        self._write()

    def add_comparison(self, part: str, comparison: Mapping[str, Any]) -> None:
        """Add and print a comparison of the harness."""
        harness.report(comparison, None)
        self._comparisons.append({"part": part, **comparison})
        self._write()

    def add_all(self, content: Mapping[str, Any]) -> None:
        """Add the rows and comparisons that another process wrote."""
        self._rows += content["rows"]
        self._comparisons += content["comparisons"]
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        facts = vars(self._work) | {"peak_tflops": self._peak, "is_dry_run": self._work.device == "cpu"}
        if torch.cuda.is_available():
            facts["chip"] = torch.cuda.get_device_name()
        content = {
            "benchmark": "training step on a GPU",
            "facts": facts,
            "rows": self._rows,
            "comparisons": self._comparisons,
            "gflop_a_clip": self.flops_per_clip and self.flops_per_clip / 1e9,
            "machine": harness.describe_machine(),
            "versions": harness.find_versions(),
        }
        self._path.write_text(json.dumps(content, indent=2) + "\n")

    def print_table(self) -> None:
        """Print all rows as one table."""
        chip = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        print(f"\n{chip}, torch {torch.__version__}: {', '.join(f'{k} {v}' for k, v in vars(self._work).items())}")
        if self._work.device == "cpu":
            print("dry run on the CPU: the times have no meaning")
        print(f"{'':44}{''.join(f'{column:>10}' for column in _COLUMNS)}")
        for row in self._rows:
            print(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    head = f"{row['part'] + ': ' + row['name']:44}" if row["name"] else f"{row['part']:44}"
    if "failed" in row:
        return f"{head}  {row['failed']}"
    if "seconds" not in row:
        kept = (f"{key} {value}" for key, value in row.items() if key not in _LONG)
        return f"{head}  {', '.join(kept)}"
    cells = (
        f"{row['seconds'] * 1e3:.1f}",
        f"{row['times_faster']:.2f}",
        f"{row['clips_per_second']:.1f}",
        f"{row['share_of_peak']:.1%}" if "share_of_peak" in row else "",
        f"{row['gb']:.1f}" if "gb" in row else "",
        f"{row['first_seconds']:.1f}",
    )
    return head + "".join(f"{cell:>10}" for cell in cells)
