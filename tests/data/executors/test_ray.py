"""The Ray engine promises what the local one does, and that nodes may come and go."""

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
from respike.data.executors import ray as engine
from respike.data.executors.base import Job, WorkerDeath

from tests.data.executors import test_local as work

ray = pytest.importorskip("ray", reason="the extra respike[ray] is not installed")
# by default Ray's workers step back behind everything else on the machine, such as other tests
os.environ.update(RAY_worker_niceness="0")
ROOT = Path(__file__).parents[3]


def run(function, items, num_workers=2, watch=lambda worker, note: None, **options):
    return dict(engine.run(Job(function=function, **options), items, num_workers, watch))


def lose_the_task_once(folder, report):
    """Kill the Ray worker that watches this process, at the first attempt."""
    if not (folder / "tried").exists():
        (folder / "tried").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return "done"


def lose_the_task(number, report):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def lose_the_task_at_five(item, report):
    """Kill the Ray worker at the item of number 5, unless told not to."""
    if item.number == 5 and not item.harmless:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return item.deaths


def work_slowly(number, report):
    """Take a while; return the node that did it."""
    report("at it")
    time.sleep(0.5)
    return ray_node()


def ray_node():
    # the process that works is the child of a Ray worker, whose parent is its node's raylet
    return psutil.Process().parent().parent().pid


@pytest.fixture(scope="module")
def instance():
    """A Ray instance of two processors that these tests share."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.mark.usefixtures("instance")
class TestOnOneNode:
    """All on one instance, which takes seconds to start."""

    def test_every_item_is_done_once_and_every_note_is_heard(self):
        notes = []
        done = list(
            engine.run(Job(function=work.square), range(7), 2, lambda worker, note: notes.append((worker, note)))
        )
        assert sorted(done) == [(number, number * number) for number in range(7)]
        assert sorted(note for _, note in notes) == list(range(7))
        assert {worker for worker, _ in notes} <= {0, 1}

    def test_an_error_comes_home_whole(self):
        with pytest.raises(RespikeError, match="two is wrong") as error:
            run(work.fail, range(4))
        assert error.value.hint == "take three"

    def test_a_process_that_dies_is_dealt_with_on_its_node(self, tmp_path):
        assert run(work.die_once, [tmp_path]) == {0: "done"}

    def test_a_process_that_always_dies_is_an_error_that_names_the_item(self):
        with pytest.raises(RespikeError, match="died 3 times at 41"):
            run(work.die, [41])

    def test_a_process_that_hangs_is_killed_and_recovery_decides(self):
        done = run(work.hang_if_harmful, [work.Item(0), work.Item(1)], recover=work.skip_harm, deadline_seconds=0.5)
        assert done[0] == ()
        assert [(death.hung, death.note) for death in done[1]] == [(True, ("at", 1))]

    def test_one_process_serves_many_items(self):
        assert len(set(run(work.process_id, range(5), 1).values())) == 1

    def test_a_lost_ray_worker_is_tried_again(self, tmp_path):
        assert run(lose_the_task_once, [tmp_path]) == {0: "done"}

    def test_a_ray_worker_that_is_always_lost_is_an_error_that_names_the_item(self):
        with pytest.raises(RespikeError, match="died 3 times at 41: it was lost"):
            run(lose_the_task, [41])

    def test_items_that_were_lost_together_are_tried_alone_and_only_one_of_them_is_blamed(self):
        items = [work.Item(number) for number in range(20)]
        done = run(lose_the_task_at_five, items, 1, recover=work.skip_harm)
        assert {number: deaths for number, deaths in done.items() if deaths} == {
            5: (WorkerDeath(note=None, exit_code=None),)
        }
        assert len(done) == 20

    def test_leaving_early_stops_what_is_under_way(self):
        results = engine.run(Job(function=work.beat), [0.01, 30.0], 2, lambda worker, note: None)
        next(results)
        before = time.monotonic()
        results.close()
        assert time.monotonic() - before < 10
        deadline = time.monotonic() + 20
        while [child for child in psutil.Process().children(recursive=True) if "child import serve" in command(child)]:
            assert time.monotonic() < deadline, "a process outlived the run"
            time.sleep(0.1)

    def test_a_signal_ends_the_run_as_its_handler_wants(self):
        class Stopped(BaseException):
            pass

        def stop(number, frame):
            raise Stopped

        before = signal.signal(signal.SIGTERM, stop)
        timer = threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        timer.start()
        try:
            with pytest.raises(Stopped):
                run(work.beat, [60.0])
        finally:
            timer.cancel()
            signal.signal(signal.SIGTERM, before)


def command(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379"])
def test_a_cluster_that_does_not_answer_is_told_soon(address):
    started = time.monotonic()
    with pytest.raises(RespikeError, match=f"no Ray cluster answers at {address}"):
        in_process_of_its_own(address)
    # Ray itself would try for more than six minutes
    assert time.monotonic() - started < 120


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(RespikeError, match="is no address of a cluster's head"):
        in_process_of_its_own(address)


def in_process_of_its_own(address):
    """Connect where no Ray instance of this test module stands."""
    code = (
        "from respike.data.executors import ray as engine\nfrom respike.data.executors.base import Job\n"
        "from respike.common.errors import RespikeError\n"
        "try: list(engine.run(Job(function=print), [1], 1, print, address=%r))\n"
        "except RespikeError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code % address], capture_output=True, text=True, check=True)
    raise RespikeError(answer.stdout.strip())


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RespikeError, match=r"pip install 'respike\[ray\]'"):
        run(work.square, [1])


@pytest.mark.slow
def test_a_node_that_is_lost_costs_only_time():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 128 << 20})
    second = cluster.add_node(num_cpus=1, object_store_memory=128 << 20)
    cluster.wait_for_nodes()
    try:
        results = engine.run(
            Job(function=work_slowly), range(30), 2, lambda worker, note: None, address=cluster.address
        )
        done = [next(results)]
        while len({node for _, node in done}) < 2:
            done.append(next(results))
        # the other node is in the midst of an item now
        cluster.remove_node(second, allow_graceful=False)
        done += list(results)
        assert sorted(index for index, _ in done) == list(range(30))
    finally:
        cluster.shutdown()
