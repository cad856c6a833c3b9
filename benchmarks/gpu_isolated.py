"""Parts of the GPU's benchmark in processes of their own: what hangs, crashes or spoils a context ends there."""

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


def run_apart(script: Path, options: Sequence[str], seconds: float) -> tuple[dict[str, Any], str]:
    """Run `script` for at most so many seconds; the rows that it wrote up to its end, and why it ended early, if so."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "part.json"
        command = [sys.executable, str(script), *options, "--inside", "--json", str(path)]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            code = process.wait(timeout=seconds)
            reason = f"the process ended with {code}" if code else ""
        except subprocess.TimeoutExpired:
            reason = f"took longer than {seconds:.0f} s"
        finally:
            # its loader workers and compilers as well
            _end_group(process.pid)
            process.wait()
        content = json.loads(path.read_text()) if path.exists() else {"rows": [], "comparisons": []}
    return content, reason


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
