"""Distributed: the rank of this process, the number of processes, which of them reports an error."""

import os

from respike.common.errors import RespikeError


def process_index() -> int:
    """The rank of this process among all, from 0. The process with rank 0 writes the files and prints."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """The number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch_warning() -> str | None:
    """A warning if this process should be one of several but runs alone; None if the launch is fine."""
    # on CPUs accelerate sets the address of the main process, then starts one process, however many were asked for
    is_launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if is_launched and "RANK" not in os.environ:
        return (
            "`accelerate launch` seems to have been asked for several processes but started only one, as it does "
            "on CPUs. This training runs alone; for several processes use "
            "`torchrun --nproc-per-node N -m respike train …`"
        )
    return None


def shutdown_process_group() -> None:
    """Wait for all processes at the end of the work, then leave the process group.

    If one process ended while another still communicates with it, the other would abort after its work was done.
    """
    # imported late: this module is used before torch is needed
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def is_local_main_process() -> bool:
    """Whether this process reports an error that all processes get before training: one per machine does."""
    return process_index() == 0 or os.environ.get("LOCAL_RANK") == "0"


def error_to_report(error: RespikeError) -> RespikeError | None:
    """The error that this process should report; None if the process with rank 0 reports it."""
    if process_index() == 0:
        return error
    if error.is_shared:
        return None
    return RespikeError(f"process {process_index()}: {error.problem}", error.hint)
