"""Processes that train together. They are forked from a server that has torch loaded, so that they start at once."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from respike.cli.main import main

ROOT = Path(__file__).parents[1]


def forking_context() -> multiprocessing.context.ForkServerContext:
    """Return a context whose processes start with torch loaded and import from the same paths as this one."""
    # the server finds modules by this alone, also if a test has changed the folder
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *inherited]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.zoo.resuming", "tests.zoo.stepped", "respike.workflows.training", "respike.data"]
    )
    return context


def start_together(target: Callable[..., None], *arguments: Any, num_processes: int = 2) -> list[BaseProcess]:
    """Start `target(*arguments)` in processes that form a group, as under torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = forking_context()
    processes = [
        context.Process(target=_run, args=(rank, num_processes, port, target, arguments))
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    return processes


def _run(rank: int, num_processes: int, port: int, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    target(*arguments)


def call_respike(folder: str, arguments: list[str]) -> None:
    """Call the program in `folder`; each process writes to `out-RANK` and `err-RANK` there."""
    os.chdir(folder)
    rank = os.environ.get("RANK", "0")
    with Path(f"out-{rank}").open("w") as out, Path(f"err-{rank}").open("w") as err:
        sys.stdout, sys.stderr = out, err
        os.dup2(err.fileno(), 2)
        main(arguments)
