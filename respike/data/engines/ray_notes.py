"""The notes of Ray tasks on their way to the driver: a task's mail, the actor that keeps it, the driver who fetches it.

A task sends its notes while it works and returns them all with its result; the driver hears each once and in order.
Mail only shows how far the work is: all of it may be lost, with the actor or its node, and the work goes on.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from respike.data.engines.base import Watch

# a thousand workers that each send every note would drown the one actor that listens
_NOTE_SECONDS = 1.0


class _TallyHandle(Protocol):
    """The tally as a task sees it."""

    add: Any


class Mail:
    """A task's end of the tally: keeps `notes` and sends the new ones about once a second, waiting for no answer."""

    def __init__(self, tally: _TallyHandle, ticket: int) -> None:
        self._tally, self._ticket = tally, ticket
        self.notes: list[object] = []
        self._num_sent = 0
        self._sent = time.monotonic()

    def add(self, note: object) -> None:
        """Take a note, and send what is new if the last mail is long enough ago."""
        self.notes.append(note)
        if time.monotonic() - self._sent < _NOTE_SECONDS:
            return
        # a dead tally must not take the work with it
        with suppress(Exception):
            self._tally.add.remote(self._ticket, self._num_sent, self.notes[self._num_sent :])
        self._num_sent, self._sent = len(self.notes), time.monotonic()


class _Tally:
    """The actor that keeps the mail of all tasks until the driver fetches it."""

    def __init__(self) -> None:
        self._mail: list[tuple[int, int, list[object]]] = []

    def add(self, ticket: int, first: int, notes: list[object]) -> None:
        self._mail.append((ticket, first, notes))

    def take(self) -> list[tuple[int, int, list[object]]]:
        mail, self._mail = self._mail, []
        return mail


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
        # of the tasks under way: their place, and how many of their notes have been heard
        self._open: dict[int, tuple[int, int]] = {}

    def begin(self, ticket: int, place: int) -> None:
        """Listen to the task `ticket`, which works at `place`."""
        self._open[ticket] = (place, 0)

    def end(self, ticket: int, notes: Sequence[object] = ()) -> None:
        """Hand over those of all `notes` of a task that have not been heard; what is still on its way is not."""
        self._hear(ticket, 0, notes)
        del self._open[ticket]

    def pass_on(self) -> None:
        """Hand over what has come in since."""
        ready, _ = self._ray.wait([self._asked], timeout=0)
        if not ready:
            return
        mail: list[tuple[int, int, list[object]]] = []
        with suppress(self._ray.exceptions.RayError):
            mail = self._ray.get(self._asked)
        self._asked = self.actor.take.remote()
        for ticket, first, notes in mail:
            if ticket in self._open:
                self._hear(ticket, first, notes)

    def _hear(self, ticket: int, first: int, notes: Sequence[object]) -> None:
        place, num_heard = self._open[ticket]
        for note in notes[max(0, num_heard - first) :]:
            self._watch(place, note)
        self._open[ticket] = (place, max(num_heard, first + len(notes)))

    def close(self) -> None:
        """End the tally."""
        with suppress(Exception):
            self._ray.kill(self.actor)
