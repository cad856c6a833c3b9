"""A spare worker process: one that a run has left over waits for the next run, for as long as it pays."""

import threading

from respike.data.engines.child import Child


class Spare:
    """Keeps at most one idle child, and ends it after `idle_seconds` without work."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._timer: threading.Timer | None = None

    def take(self) -> Child | None:
        """The child that waits, which is the caller's from now on; None where none waits or it has died."""
        child = self._swap(None)
        # an idle child says nothing, so what there is to read is its end
        if child is not None and child.connection.poll():
            child.end()
            return None
        return child

    def keep(self, child: Child) -> None:
        """Let a child that is at no item wait here."""
        timer = threading.Timer(self._idle_seconds, self._end, [child])
        timer.daemon = True
        before = self._swap(child, timer)
        if before is not None:
            before.end()
        timer.start()

    def _swap(self, child: Child | None, timer: threading.Timer | None = None) -> Child | None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            before, self._child, self._timer = self._child, child, timer
        return before

    def _end(self, child: Child) -> None:
        with self._lock:
            # it may have been taken while the timer was about to ring
            is_here, self._child = self._child is child, None if self._child is child else self._child
        if is_here:
            child.end()
