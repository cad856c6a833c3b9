"""Bytes under way: what one connection brings, and the ways in which it can fail."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """What a server or store sends.

    `offset` is where in the file the first byte belongs, `num_bytes` the length of the whole file, None where it is not
    told, `version` what changes when the file does, None where nothing does. `tells_end` is whether the last byte can
    be told from a dropped connection.
    """

    offset: int
    num_bytes: int | None
    version: str | None
    chunks: Iterator[bytes]
    tells_end: bool = True


class BrokenTransferError(Exception):
    """The connection failed in a way that another try may mend.

    `wait_seconds` is how long the server asks to wait; `is_offline`, that there may be no network at all.
    """

    def __init__(self, reason: str, *, wait_seconds: float | None = None, is_offline: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds
        self.is_offline = is_offline


class StaleError(Exception):
    """What was received before cannot be continued: the file has changed since, or is shorter."""
