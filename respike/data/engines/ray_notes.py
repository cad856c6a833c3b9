"""The notes of Ray tasks on their way to the driver: a task's mail, the actor that keeps it, the driver who fetches it.

Notes only show how far the work is: all of them may be lost, with the actor or its node, and the work goes on.
"""

import time
from contextlib import suppress
from typing import Any, Protocol

from respike.data.engines.base import Watch

# a thousand workers that each send every note would drown the one actor that listens
_NOTE_SECONDS = 1.0


class _TallyHandle(Protocol):
    """The tally as a task sees it."""

    add: Any


class Mail:
    """A task's end of the tally: gathers notes and sends them about once a second, waiting for no answer."""

    def __init__(self, tally: _TallyHandle, worker: int) -> None:
        self._tally, self._worker = tally, worker
        self._notes: list[object] = []
        self._sent = time.monotonic()

    def add(self, note: object) -> None:
        """Take a note, and send all if the last mail is long enough ago."""
        self._notes.append(note)
        if time.monotonic() - self._sent >= _NOTE_SECONDS:
            self.send()

    def send(self) -> None:
        """Send what has gathered."""
        if self._notes:
            # a dead tally must not take the work with it
            with suppress(Exception):
                self._tally.add.remote(self._worker, self._notes)
        self._notes, self._sent = [], time.monotonic()


class _Tally:
    """The actor that keeps the notes of all tasks until the driver fetches them."""

    def __init__(self) -> None:
        self._notes: list[tuple[int, object]] = []

    def add(self, worker: int, notes: list[object]) -> None:
        self._notes += [(worker, note) for note in notes]

    def take(self) -> list[tuple[int, object]]:
        notes, self._notes = self._notes, []
        return notes


class Listener:
    """The driver's end of the tally. It may miss notes, but never stops or fails the run."""

    def __init__(self, ray: Any, watch: Watch) -> None:
        self._ray, self._watch = ray, watch
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
            notes: list[tuple[int, object]] = []
            with suppress(self._ray.exceptions.RayError):
                notes = self._ray.get(self._asked)
            self._asked = self.actor.take.remote()
            for worker, note in notes:
                self._watch(worker, note)

    def close(self) -> None:
        """End the tally."""
        with suppress(Exception):
            self._ray.kill(self.actor)
