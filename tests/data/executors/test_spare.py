"""A spare process promises: the next run that comes soon finds it, and nobody finds a dead one."""

import os
import signal
import time

import psutil
import pytest
from respike.data.executors import local
from respike.data.executors.base import Job
from respike.data.executors.local import Spare

from tests.data.executors.test_local import process_id


@pytest.fixture
def spare():
    made = Spare(idle_seconds=60)
    yield made
    if (child := made.take()) is not None:
        child.end()


def worker_of_a_run(spare):
    steps = local.run_in_steps(Job(function=process_id), [1], 1, lambda worker, note: None, spare=spare)
    ((_, pid),) = filter(None, steps)
    return pid


def ended(pid):
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_next_run_works_in_the_same_process(spare):
    assert worker_of_a_run(spare) == worker_of_a_run(spare)
    assert worker_of_a_run(spare) != worker_of_a_run(None)


def test_a_worn_process_is_not_kept(spare, monkeypatch):
    monkeypatch.setattr(local, "MAX_ITEMS_A_WORKER", 2)
    pids = [worker_of_a_run(spare) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_one_that_died_while_it_waited_is_replaced(spare):
    first = worker_of_a_run(spare)
    os.kill(first, signal.SIGKILL)
    assert ended(first)
    assert worker_of_a_run(spare) != first


def test_one_that_nobody_needs_ends():
    spare = Spare(idle_seconds=0.1)
    assert ended(worker_of_a_run(spare))
    assert spare.take() is None
