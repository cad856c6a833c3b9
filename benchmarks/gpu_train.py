"""Speed of `respike train` on a GPU, with its loader, started by torchrun with one process (NCCL)."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu_step import Work

NUM_EPOCHS = 3


def measure_training(work: Work, shards: Path, *, options: list[str], workers: int, seconds: float) -> dict[str, Any]:
    """Train for three epochs, for at most `seconds`; return the figures of the last epoch from `history.jsonl`."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "respike", "train"]
        command += ["--data", str(shards), "--model", work.model, "--image-size", str(work.size)]
        command += ["--batch-size", str(work.batch), "--epochs", str(NUM_EPOCHS), "--val-share", "0"]
        command += ["--device", work.device, "--workers", str(workers), "--out", str(run), *options]
        root = str(Path(__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        _run(command, environment, seconds)
        records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    last = records[-1]
    return {
        "clips_per_second": round(last["clips_per_second"], 1),
        "first_epoch_clips_per_second": round(records[0]["clips_per_second"], 1),
        "waited_share": round(last["waited_share"], 3),
        "gb": round(last["memory_bytes"] / 1e9, 1),
        "losses": [round(record["train_loss"], 4) for record in records],
        "clips": round(last["clips_per_second"] * last["seconds"]),
        "options": " ".join(options),
    }


def _run(command: list[str], environment: dict[str, str], seconds: float) -> None:
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        messages = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        # the workers of torchrun have their own sessions, and torchrun ends them
        process.send_signal(signal.SIGTERM)
        messages = process.communicate(timeout=40)[1]
        raise RuntimeError(f"respike train took longer than {seconds:.0f} s: {messages[-300:]}") from None
    if process.returncode:
        print(messages[-3000:], file=sys.stderr, flush=True)
        lines = [line for line in messages.splitlines() if "rror" in line] or messages.splitlines()
        raise RuntimeError(f"respike train ended with exit code {process.returncode}: {lines[0] if lines else ''}")
