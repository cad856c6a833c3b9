"""Distributed: the rank of this process, the number of processes, errors told once."""

import os

from respike.common.errors import RespikeError


def process_index() -> int:
    """The place of this process among all, from 0; the first is the one that writes and prints."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def find_launch_problem() -> str | None:
    """What is wrong with how this process was started, if it was to be one of several and is alone."""
    # for CPUs accelerate sets an address to meet at, and then starts one process whatever it was asked for
    is_launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if is_launched and "RANK" not in os.environ:
        return (
            "`accelerate launch` seems to have been asked for several processes and has started one, as it does on "
            "CPUs: this training runs alone; for several take `torchrun --nproc-per-node N -m respike train …`"
        )
    return None


def leave_together() -> None:
    """Leave the group of processes, each waiting for all, at the end of what they do together.

    One that ends while another's threads still talk to it makes that one abort after its work was done.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def tells_plan_errors() -> bool:
    """Whether this process tells what went wrong before the training: each machine's first, since all meet the same."""
    return process_index() == 0 or os.environ.get("LOCAL_RANK") == "0"


def as_told(error: RespikeError) -> RespikeError | None:
    """The error as this process should tell it; None where the first process tells it."""
    if process_index() == 0:
        return error
    if error.is_shared:
        return None
    return RespikeError(f"process {process_index()}: {error.problem}", error.hint)
