"""Fixtures of the download tests: a server, a file on it, and short timeouts."""

import random
from collections.abc import Iterator

import pytest
from respike.common.download import FetchSettings

from tests.common.download.server import Server, running

CONTENT = random.Random(7).randbytes(50_000)
QUICK = FetchSettings(
    connect_seconds=2,
    stall_seconds=0.4,
    num_retries=3,
    backoff_seconds=0.01,
    most_backoff_seconds=0.05,
    most_wait_seconds=1,
)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        server.files["/file.bin"] = CONTENT
        yield server
