"""The Ray engine: a function over items on the nodes of a Ray cluster, or on a Ray instance of this machine.

Items and results travel through Ray and must be small; whatever is large, `function` reads and writes itself.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from respike.errors import RespikeError

Item = TypeVar("Item")
Result = TypeVar("Result")
Function = Callable[[Item, Callable[[Any], None]], Result]

MAX_ATTEMPTS = 3
_POLL_SECONDS = 0.25
# a thousand workers that each report every video would drown the one actor that listens
_REPORT_SECONDS = 1.0
_CONNECT_SECONDS = 10
# only marks and reports pass through the store; the default would take a third of the memory
_STORE_BYTES = 128 << 20


def run(
    function: "Function[Item, Result]",
    items: Sequence[Item],
    num_workers: int | None,
    report: Callable[[Any], None],
    *,
    address: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Call `function(item, report)` on every item, one Ray task each, and yield (its index, the result) when done.

    `address` is the cluster's (None: the variable RAY_ADDRESS, else a fresh Ray instance on this machine, which ends
    with the run). At most `num_workers` tasks are in flight (None: as many as the cluster runs). A task whose worker
    or node dies is tried again elsewhere; after 3 attempts RespikeError names the item. An exception from `function`
    ends the run. `report` is called here with what the tasks report; reports are lost where their node is.

    Raises RespikeError where ray is not installed or no cluster answers.
    """
    ray = _import_ray()
    with _connected(ray, address, num_workers):
        listener = _Listener(ray, report)
        flight = _Flight(ray, function, items, listener)
        try:
            yield from flight.run(num_workers or len(items))
        finally:
            flight.cancel()
            listener.close()


class _Flight:
    """The tasks that are under way, and how often each item was tried."""

    def __init__(self, ray: Any, function: "Function[Any, Any]", items: Sequence[Any], listener: "_Listener") -> None:
        self._ray, self._items, self._listener = ray, items, listener
        # attempts are counted here and not by Ray, so that the item can be named
        self._task = ray.remote(max_retries=0, num_cpus=1)(_call)
        # put once: the function does not travel with each task
        self._function = ray.put(function)
        self._attempts = [0] * len(items)
        self._pending: dict[Any, int] = {}

    def run(self, most: int) -> Iterator[tuple[int, Any]]:
        waiting = list(range(len(self._items)))[::-1]
        while waiting or self._pending:
            while waiting and len(self._pending) < most:
                self._start(waiting.pop())
            done, _ = self._ray.wait(list(self._pending), timeout=_POLL_SECONDS)
            self._listener.pass_on()
            for reference in done:
                index = self._pending.pop(reference)
                try:
                    result = self._result(reference, index)
                except _WorkerDiedError:
                    waiting.append(index)
                else:
                    yield index, result
        self._listener.pass_on(last=True)

    def cancel(self) -> None:
        for reference in self._pending:
            # by force: a task in the midst of a video would not hear anything gentler
            with suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _start(self, index: int) -> None:
        self._attempts[index] += 1
        reference = self._task.remote(self._function, self._items[index], self._listener.actor)
        self._pending[reference] = index

    def _result(self, reference: Any, index: int) -> Any:
        errors = self._ray.exceptions
        item = f"{self._items[index]!s:.80}"
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ImportError):
                raise RespikeError(
                    f"a node of the Ray cluster cannot run {item}: {cause}",
                    "install the same respike, with the same constraints.txt, on every node",
                ) from error
            raise cause from None
        except (errors.RaySystemError, errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            raise RespikeError(f"Ray cannot run {item}: {_first_line(error)}", "see `ray status`") from error
        except errors.RayError as error:
            if self._attempts[index] == MAX_ATTEMPTS:
                raise RespikeError(
                    f"a Ray worker or its node died {MAX_ATTEMPTS} times at {item} ({_first_line(error)})",
                    "give each worker more memory, or run with fewer --workers",
                ) from error
            raise _WorkerDiedError from error


class _WorkerDiedError(Exception):
    """A worker or node died, and the item may be tried again."""


class _Tally:
    """The actor that collects what tasks report until the driver fetches it."""

    def __init__(self) -> None:
        self._amounts: list[Any] = []

    def add(self, amounts: list[Any]) -> None:
        self._amounts += amounts

    def take(self) -> list[Any]:
        amounts, self._amounts = self._amounts, []
        return amounts


class _Listener:
    """The driver's end of the tally. It may miss reports, but never stops or fails the run."""

    def __init__(self, ray: Any, report: Callable[[Any], None]) -> None:
        self._ray, self._report = ray, report
        home = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        # beside the driver: it should outlive any other node; and a new one takes its place if it dies all the same
        self.actor = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=home)(_Tally).remote()
        self._asked = self.actor.take.remote()

    def pass_on(self, *, last: bool = False) -> None:
        """Hand over what has come in since; the `last` time, wait a moment for what is on its way."""
        for _ in range(2 if last else 1):
            ready, _rest = self._ray.wait([self._asked], timeout=1.0 if last else 0)
            if not ready:
                return
            amounts: list[Any] = []
            with suppress(self._ray.exceptions.RayError):
                amounts = self._ray.get(self._asked)
            self._asked = self.actor.take.remote()
            for amount in amounts:
                self._report(amount)

    def close(self) -> None:
        with suppress(Exception):
            self._ray.kill(self.actor)


class _Remote(Protocol):
    """A handle of the tally, as a task sees it."""

    add: Any


def _call(function: "Function[Item, Result]", item: Item, tally: _Remote) -> Result:
    reporter = _Reporter(tally)
    try:
        return function(item, reporter)
    finally:
        reporter.send()


class _Reporter:
    """A task's end of the tally: gathers reports and sends them about once a second, waiting for no answer."""

    def __init__(self, tally: _Remote) -> None:
        self._tally = tally
        self._amounts: list[Any] = []
        self._sent = time.monotonic()

    def __call__(self, amount: Any) -> None:
        self._amounts.append(amount)
        if time.monotonic() - self._sent >= _REPORT_SECONDS:
            self.send()

    def send(self) -> None:
        if self._amounts:
            # a dead tally must not take the work with it
            with suppress(Exception):
                self._tally.add.remote(self._amounts)
        self._amounts, self._sent = [], time.monotonic()


def _import_ray() -> Any:
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise RespikeError(
            f"--engine ray needs ray, which cannot be imported ({error})", "pip install 'respike[ray]'"
        ) from error
    return ray


@contextmanager
def _connected(ray: Any, address: str | None, num_workers: int | None) -> Iterator[None]:
    """Be a driver of the cluster for the length of the block; a connection that stood before is used and stays."""
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
        raise RespikeError(f"no Ray cluster at {address}: {_first_line(error)}", _START) from error
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
        raise RespikeError(f"no Ray cluster answers at {address}: {_first_line(error)}", _START) from error


_START = "start one with `ray start --head`, or give another --ray-address"


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
