"""How patient a download is."""

from dataclasses import dataclass

from respike.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """Bounds of waiting, in seconds, and of trying again.

    A connection that brings less than `least_bytes_per_second` over `stall_seconds` counts as dead. After `num_retries`
    tries in a row that brought less than a megabyte each, the download is given up; between tries it waits
    `backoff_seconds`, doubled each time, up to `most_backoff_seconds`, or as long as the server asks, up to
    `most_wait_seconds`.
    """

    connect_seconds: float = 15.0
    stall_seconds: float = 30.0
    least_bytes_per_second: float = 200.0
    num_retries: int = 5
    backoff_seconds: float = 1.0
    most_backoff_seconds: float = 60.0
    most_wait_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name in ("connect_seconds", "stall_seconds")):
                raise SettingError(f"{name} is {value}", "give more than 0")

    def backoff(self, num_failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more."""
        return float(min(self.most_backoff_seconds, self.backoff_seconds * 2 ** (num_failures - 1)))
