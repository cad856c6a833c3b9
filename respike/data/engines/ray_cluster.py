"""The connection to a Ray cluster, or to a Ray instance of this machine that lives as long as one run."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from respike.errors import RespikeError

_CONNECT_SECONDS = 10
# only items and notes pass through the object store; by default it would take a third of the memory
_STORE_BYTES = 128 << 20


def import_ray() -> Any:
    """Return the module `ray`. Raises RespikeError with the way to install it where there is none."""
    try:
        import ray
    except ImportError as error:
        raise RespikeError(
            f"--engine ray needs ray, which cannot be imported ({error})", "pip install 'respike[ray]'"
        ) from error
    return ray


@contextmanager
def connected(ray: Any, address: str | None, num_workers: int | None) -> Iterator[None]:
    """Be a driver of the cluster at `address` for the length of the block.

    A connection that stood before is used and left standing. Raises RespikeError where no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    fresh: dict[str, Any] = {}
    if address == "local":
        # a Ray instance of our own counts its processors for itself and tells nobody that it ran
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        fresh = {"num_cpus": num_workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    # Ray puts a handler of its own in the place of whatever the program does on SIGTERM
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **fresh)
    except (OSError, RuntimeError, ValueError) as error:
        raise RespikeError(f"no Ray cluster at {address}: {first_line(error)}", _START) from error
    try:
        with suppress(ValueError):  # not in the main thread, where Ray set none either
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Find out in seconds that nobody listens; Ray itself would try for many minutes."""
    if address in ("local", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        raise RespikeError(
            f"--ray-address {address!r} is no address of a cluster's head",
            "give HOST:PORT, `auto` or `local`; run respike on a node of the cluster rather than through ray://",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RespikeError(f"no Ray cluster answers at {address}: {first_line(error)}", _START) from error


_START = "start one with `ray start --head`, or give another --ray-address"


def first_line(error: BaseException) -> str:
    """What an error says, less Ray's many lines of advice."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
