"""The local executor: every item is done once even if workers die, and no process is left running."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from respike.common.errors import RespikeError
from respike.data.executors import local
from respike.data.executors.base import Job, PendingResult, WorkerDeath


def square(number, report):
    report(number)
    return number * number


def process_id(number, report):
    return os.getpid()


def fail_at_two(number, report):
    if number == 2:
        raise RespikeError("two is wrong", "take three")
    return number


def refuse_to_pickle(number, report):
    class LocalError(Exception):
        pass

    raise LocalError("known only here")


def die_once(folder, report):
    """Die at the first attempt, in mid-work."""
    report("at it")
    if not (folder / "tried").exists():
        (folder / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def die(number, report):
    report(f"item {number}")
    os._exit(7)


def make_harmless(item, deaths: tuple[WorkerDeath, ...]):
    return dataclasses.replace(item, harmless=True, deaths=tuple(deaths))


@dataclasses.dataclass(frozen=True)
class Item:
    number: int
    harmless: bool = False
    deaths: tuple[WorkerDeath, ...] = ()


def hang_if_harmful(item, report):
    report(("at", item.number))
    if item.number == 1 and not item.harmless:
        # a decoder in an endless loop holds the interpreter's lock: no thread of this process could end it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
        while True:
            time.sleep(1)
    return item.deaths


def send_events(seconds, report):
    ended = time.monotonic() + seconds
    while time.monotonic() < ended:
        report("still here")
        time.sleep(0.05)
    return "done"


STARTED = set()


def wait_until_the_next_item_starts(number, report):
    STARTED.add(number)

    def wait():
        deadline = time.monotonic() + (10 if number < 2 else 0)
        while number + 1 not in STARTED and time.monotonic() < deadline:
            time.sleep(0.01)
        return number + 1 in STARTED

    return PendingResult(wait)


def count_waiting_results(number, report):
    def wait():
        STARTED.add(number)
        time.sleep(0.1)
        both = len(STARTED)
        STARTED.remove(number)
        return both

    return PendingResult(wait)


def fail_while_waiting(number, report):
    def wait():
        raise RespikeError("the disk is full", "buy another")

    return PendingResult(wait)


def exit_once_while_waiting(folder, report):
    """End the waiting thread alone, at the first attempt."""

    def wait():
        if not (folder / "tried").exists():
            (folder / "tried").touch()
            raise SystemExit("there will be no result")
        return "done"

    return PendingResult(wait)


def kill_while_the_first_result_is_pending(item, report):
    """Two items: the result of the first takes a second, the second kills the process unless it is harmless."""
    folder, number = item.number
    report(number)
    with (folder / "attempts").open("a") as file:
        file.write(f"{number}")
    if number == 1 and not item.harmless:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return PendingResult(lambda: time.sleep(1.0 if number == 0 else 0.0) or item.deaths)


def work_silently_while_the_first_result_is_pending(number, report):
    report(number)
    if number == 1:
        time.sleep(1.5)
    return PendingResult(lambda: time.sleep(2.0 if number == 0 else 0.0))


def run(function, items, num_workers=2, on_event=lambda worker, event: None, **options):
    return dict(local.run(Job(function=function, **options), items, num_workers, on_event))


@pytest.mark.parametrize("num_workers", [1, 3, 9])
def test_every_item_is_done_once_and_every_event_arrives(num_workers):
    events = []
    done = list(
        local.run(Job(function=square), range(5), num_workers, lambda worker, event: events.append((worker, event)))
    )
    assert sorted(done) == [(number, number * number) for number in range(5)]
    assert sorted(event for _, event in events) == list(range(5))
    assert {worker for worker, _ in events} <= set(range(num_workers))


def test_no_items_need_no_worker():
    assert run(square, []) == {}


def test_by_default_there_are_as_many_workers_as_usable_cpus(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    process_ids = run(process_id, range(8), None).values()
    assert len(set(process_ids)) == 1


def test_a_single_worker_is_another_process_too():
    assert os.getpid() not in run(process_id, [1, 2], 1).values()


def test_an_error_reaches_the_caller_unchanged():
    with pytest.raises(RespikeError, match="two is wrong") as error:
        run(fail_at_two, range(5))
    assert error.value.hint == "take three"


def test_an_error_that_does_not_pickle_arrives_as_text():
    with pytest.raises(RuntimeError, match="LocalError: known only here"):
        run(refuse_to_pickle, [1])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_dead_worker_is_replaced_and_its_item_retried(tmp_path, num_workers):
    assert run(die_once, [tmp_path], num_workers) == {0: "done"}


def test_an_item_that_always_kills_its_worker_is_named():
    with pytest.raises(RespikeError, match="a worker died 3 times at 5: exit code 7"):
        run(die, [5])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_hanging_worker_is_killed_and_its_last_event_known(num_workers):
    started = time.monotonic()
    done = run(hang_if_harmful, [Item(n) for n in range(4)], num_workers, retry=make_harmless, timeout_seconds=1.0)
    assert time.monotonic() - started < 30
    death = WorkerDeath(last_event=("at", 1), exit_code=-signal.SIGKILL, is_timeout=True)
    assert done == {0: (), 1: (death,), 2: (), 3: ()}


def test_a_worker_that_reports_events_does_not_time_out():
    assert run(send_events, [2.0], 1, timeout_seconds=1.0) == {0: "done"}


def test_a_slow_caller_lets_no_worker_time_out():
    results = []
    for _, result in local.run(Job(function=send_events, timeout_seconds=1.0), [0.1, 0.1, 2.0], 2, lambda *event: None):
        time.sleep(1.5)
        results.append(result)
    assert results == ["done"] * 3


def test_workers_are_replaced_after_some_items(monkeypatch):
    monkeypatch.setattr(local, "MAX_ITEMS_PER_WORKER", 2)
    assert len(set(run(process_id, range(4), 1).values())) == 2


def test_a_worker_that_uses_too_much_memory_is_replaced(monkeypatch):
    monkeypatch.setattr(local, "MAX_WORKER_BYTES", 1)
    assert len(set(run(process_id, range(3), 1).values())) == 3


def process_of_a_run(idle_processes):
    steps = local.run_in_steps(Job(function=process_id), [1], 1, lambda *event: None, idle_processes=idle_processes)
    ((_, pid),) = filter(None, steps)
    return pid


def wait_for_end(pid):
    deadline = time.monotonic() + 10
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_an_idle_process_serves_the_next_run_unless_it_died():
    idle_processes = local.IdleProcesses(idle_seconds=60)
    pid = process_of_a_run(idle_processes)
    assert process_of_a_run(idle_processes) == pid
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert process_of_a_run(idle_processes) != pid
    idle_processes.take().kill()


def test_an_idle_process_ends_after_a_while():
    idle_processes = local.IdleProcesses(idle_seconds=0.1)
    wait_for_end(process_of_a_run(idle_processes))
    assert idle_processes.take() is None


def test_the_next_item_starts_while_a_result_is_pending():
    # the last one has none to wait for
    assert run(wait_until_the_next_item_starts, range(3), 1) == {0: True, 1: True, 2: False}


def test_only_one_result_is_pending_at_a_time():
    assert run(count_waiting_results, range(4), 1) == dict.fromkeys(range(4), 1)


def test_a_thread_that_ends_without_a_result_is_a_death(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tried").touch()
    assert run(exit_once_while_waiting, [tmp_path, tmp_path / "other"], 1) == {0: "done", 1: "done"}


def test_an_error_of_a_pending_result_reaches_the_caller():
    with pytest.raises(RespikeError, match="the disk is full"):
        run(fail_while_waiting, [1, 2])


def test_a_death_at_two_items_counts_for_neither(tmp_path):
    items = [Item((tmp_path, number)) for number in range(2)]
    done = run(kill_while_the_first_result_is_pending, items, 1, retry=make_harmless)
    # first together, when nobody knows which one it was; then the first alone; then the second alone, twice
    assert (tmp_path / "attempts").read_text() == "01011"
    assert done == {0: (), 1: (WorkerDeath(last_event=1, exit_code=-signal.SIGKILL),)}


def test_silence_during_a_pending_result_is_no_timeout():
    assert run(work_silently_while_the_first_result_is_pending, [0, 1], 1, timeout_seconds=1.0) == {0: None, 1: None}


def test_stopping_half_way_leaves_no_process():
    pids = []
    for _ in local.run(Job(function=send_events), [0.1, 60.0, 60.0], 3, lambda worker, event: None):
        pids = [child.pid for child in psutil.Process().children() if "import serve" in " ".join(child.cmdline())]
        break
    assert pids
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_the_workers_of_a_killed_parent_end(tmp_path):
    script = (
        "import sys\nfrom respike.data.executors import local\nfrom respike.data.executors.base import Job\n"
        "from tests.data.executors.test_local import send_events\n"
        "for _ in local.run(Job(function=send_events), [0.01, 60.0], 2, lambda *event: None): print('on', flush=True)"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout.readline() == "on\n"
        (worker,) = psutil.Process(parent.pid).children()
        parent.kill()
        parent.wait()
    # gone, or a zombie that its new parent has not collected yet
    deadline = time.monotonic() + 10
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_script_without_a_main_guard_may_run_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from respike.data.executors import local\nfrom respike.data.executors.base import Job\n"
        "from tests.data.executors.test_local import square\n"
        "print(dict(local.run(Job(function=square), [3], 1, lambda worker, event: None)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    answer = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout == "{0: 9}\n"


def test_a_run_in_a_thread_works_too():
    done = {}
    thread = threading.Thread(target=lambda: done.update(run(square, [2], 1)))
    thread.start()
    thread.join()
    assert done == {0: 4}
