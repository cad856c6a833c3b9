"""The local engine promises: every item once, whatever becomes of its workers, and nothing left running."""

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


def fail(number, report):
    if number == 2:
        raise RespikeError("two is wrong", "take three")
    return number


def refuse_to_pickle(number, report):
    class LocalError(Exception):
        pass

    raise LocalError("of no use elsewhere")


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


def skip_harm(item, deaths: tuple[WorkerDeath, ...]):
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


def beat(seconds, report):
    ended = time.monotonic() + seconds
    while time.monotonic() < ended:
        report("still here")
        time.sleep(0.05)
    return "done"


def grow(number, report):
    return os.getpid()


BEGUN = set()


def settle_when_the_next_has_begun(number, report):
    BEGUN.add(number)

    def settle():
        deadline = time.monotonic() + (10 if number < 2 else 0)
        while number + 1 not in BEGUN and time.monotonic() < deadline:
            time.sleep(0.01)
        return number + 1 in BEGUN

    return PendingResult(settle)


def settle_one_at_a_time(number, report):
    def settle():
        BEGUN.add(number)
        time.sleep(0.1)
        both = len(BEGUN)
        BEGUN.remove(number)
        return both

    return PendingResult(settle)


def fail_to_settle(number, report):
    def settle():
        raise RespikeError("the disk is full", "buy another")

    return PendingResult(settle)


def exit_once_while_settling(folder, report):
    """End the settling thread alone, at the first attempt."""

    def settle():
        if not (folder / "tried").exists():
            (folder / "tried").touch()
            raise SystemExit("no result comes of this")
        return "done"

    return PendingResult(settle)


def kill_while_the_first_settles(item, report):
    """Two items: the first settles for a second, the second kills the process unless told otherwise."""
    folder, number = item.number
    report(number)
    with (folder / "attempts").open("a") as file:
        file.write(f"{number}")
    if number == 1 and not item.harmless:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return PendingResult(lambda: time.sleep(1.0 if number == 0 else 0.0) or item.deaths)


def work_in_silence_while_the_first_settles(number, report):
    report(number)
    if number == 1:
        time.sleep(2.5)
    return PendingResult(lambda: time.sleep(3.0 if number == 0 else 0.0))


def run(function, items, num_workers=2, watch=lambda worker, note: None, **options):
    return dict(local.run(Job(function=function, **options), items, num_workers, watch))


@pytest.mark.parametrize("num_workers", [1, 2, 9])
def test_every_item_is_done_once_and_every_note_is_heard(num_workers):
    notes = []
    done = list(
        local.run(Job(function=square), range(7), num_workers, lambda worker, note: notes.append((worker, note)))
    )
    assert sorted(done) == [(number, number * number) for number in range(7)]
    assert sorted(note for _, note in notes) == list(range(7))
    assert {worker for worker, _ in notes} <= set(range(num_workers))


def test_no_items_need_no_worker():
    assert run(square, []) == {}


def test_one_worker_too_is_a_process_of_its_own():
    assert os.getpid() not in run(process_id, [1, 2], 1).values()


def test_an_error_comes_home_whole():
    with pytest.raises(RespikeError, match="two is wrong") as error:
        run(fail, range(5))
    assert error.value.hint == "take three"


def test_an_error_that_cannot_travel_is_told():
    with pytest.raises(RuntimeError, match="LocalError: of no use elsewhere"):
        run(refuse_to_pickle, [1])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_dies_is_replaced_and_its_item_tried_again(tmp_path, num_workers):
    assert run(die_once, [tmp_path], num_workers) == {0: "done"}


def test_an_item_that_always_kills_ends_the_run_with_its_name():
    with pytest.raises(RespikeError, match="a worker died 3 times at 5: exit code 7"):
        run(die, [5])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_hangs_is_killed_and_recovery_is_told_what_it_was_at(num_workers):
    started = time.monotonic()
    done = run(hang_if_harmful, [Item(n) for n in range(4)], num_workers, recover=skip_harm, deadline_seconds=1.0)
    assert time.monotonic() - started < 30
    assert done == {0: (), 1: (WorkerDeath(note=("at", 1), exit_code=-signal.SIGKILL, hung=True),), 2: (), 3: ()}


def test_a_worker_that_speaks_is_not_called_hung():
    assert run(beat, [2.5], 1, deadline_seconds=1.0) == {0: "done"}


def test_a_slow_caller_is_not_held_against_the_workers():
    results = []
    for _, result in local.run(Job(function=beat, deadline_seconds=1.0), [0.1, 0.1, 3.0], 2, lambda *note: None):
        time.sleep(2)
        results.append(result)
    assert results == ["done"] * 3


def test_workers_are_replaced_after_some_items(monkeypatch):
    monkeypatch.setattr(local, "MAX_ITEMS_A_WORKER", 2)
    assert len(set(run(process_id, range(6), 1).values())) == 3


def test_a_worker_that_grew_is_replaced(monkeypatch):
    monkeypatch.setattr(local, "MAX_WORKER_BYTES", 1)
    assert len(set(run(process_id, range(4), 1).values())) == 4


def test_the_next_item_is_begun_while_a_result_settles():
    # the last one has none to wait for
    assert run(settle_when_the_next_has_begun, range(3), 1) == {0: True, 1: True, 2: False}


def test_one_result_settles_at_a_time():
    assert run(settle_one_at_a_time, range(4), 1) == dict.fromkeys(range(4), 1)


def test_a_thread_that_ends_without_a_result_counts_as_a_death(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tried").touch()
    assert run(exit_once_while_settling, [tmp_path, tmp_path / "other"], 1) == {0: "done", 1: "done"}


def test_an_error_in_settling_comes_home():
    with pytest.raises(RespikeError, match="the disk is full"):
        run(fail_to_settle, [1, 2])


def test_a_death_that_may_be_of_either_of_two_items_is_held_against_none(tmp_path):
    items = [Item((tmp_path, number)) for number in range(2)]
    done = run(kill_while_the_first_settles, items, 1, recover=skip_harm)
    # once together, where nobody can tell; then the first alone, and the second alone, which settles the question
    assert (tmp_path / "attempts").read_text() == "01011"
    assert done == {0: (), 1: (WorkerDeath(note=1, exit_code=-signal.SIGKILL),)}


def test_silence_while_another_item_settles_is_not_called_hung():
    assert run(work_in_silence_while_the_first_settles, [0, 1], 1, deadline_seconds=1.0) == {0: None, 1: None}


def test_stopping_half_way_leaves_no_process_behind():
    pids = []
    for _ in local.run(Job(function=beat), [0.1, 60.0, 60.0], 3, lambda worker, note: None):
        pids = [child.pid for child in psutil.Process().children() if "engines.child" in " ".join(child.cmdline())]
        break
    assert pids
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_killed_parent_takes_its_workers_along(tmp_path):
    script = (
        "import sys\nfrom respike.data.executors import local\nfrom respike.data.executors.base import Job\n"
        "from tests.data.executors.test_local import beat\n"
        "for _ in local.run(Job(function=beat), [0.01, 60.0], 2, lambda worker, note: None): print('going', flush=True)"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout.readline() == "going\n"
        (worker,) = psutil.Process(parent.pid).children()
        parent.kill()
        parent.wait()
    # gone, or dead and not yet buried by whoever inherited it
    deadline = time.monotonic() + 10
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_script_without_a_main_guard_may_run_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from respike.data.executors import local\nfrom respike.data.executors.base import Job\n"
        "from tests.data.executors.test_local import square\n"
        "print(dict(local.run(Job(function=square), [3], 1, lambda worker, note: None)))"
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
