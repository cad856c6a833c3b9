"""Runs a part of the GPU benchmark in a separate process, so that a hang or crash does not end the benchmark."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_in_subprocess(script: Path, options: Sequence[str], seconds: float) -> tuple[dict[str, Any], str]:
    """Run `script` for at most `seconds`. Return the rows that it wrote, and why it ended early, or an empty text."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "part.json"
        command = [sys.executable, str(script), *options, "--inside", "--json", str(path)]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            code = process.wait(timeout=seconds)
            reason = f"the process ended with exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            reason = f"took longer than {seconds:.0f} s"
        finally:
            # the process group includes its loader workers and compilers
            _end_group(process.pid)
            process.wait()
        content = json.loads(path.read_text()) if path.exists() else {"rows": [], "comparisons": []}
    return content, reason


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
