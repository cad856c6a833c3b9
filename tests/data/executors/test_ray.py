"""The Ray executor: it keeps the promises of the local one, and survives the loss of nodes."""

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
from respike.data.executors import ray as ray_executor
from respike.data.executors.base import Job, WorkerDeath

from tests.data.executors import test_local as work

ray = pytest.importorskip("ray", reason="the extra respike[ray] is not installed")
# by default Ray's workers run at a lower priority than everything else, such as other tests
os.environ.update(RAY_worker_niceness="0")
ROOT = Path(__file__).parents[3]


def run(function, items, num_workers=2, on_event=lambda worker, event: None, **options):
    return dict(ray_executor.run(Job(function=function, **options), items, num_workers, on_event))


def lose_task_once(folder, report):
    """Kill the Ray worker of this process, at the first attempt."""
    if not (folder / "tried").exists():
        (folder / "tried").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return "done"


def lose_task(number, report):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def lose_task_at_five(item, report):
    """Kill the Ray worker at item 5, unless it is harmless."""
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
    # the process of an item is the child of a Ray worker, whose parent is the raylet of its node
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
    """All share one instance, because it takes seconds to start."""

    def test_every_item_is_done_once_and_every_event_arrives(self):
        events = []
        done = list(ray_executor.run(Job(function=work.square), range(7), 2, lambda *event: events.append(event)))
        assert sorted(done) == [(number, number * number) for number in range(7)]
        assert sorted(event for _, event in events) == list(range(7))
        assert {worker for worker, _ in events} <= {0, 1}

    def test_an_error_reaches_the_caller_unchanged(self):
        with pytest.raises(RespikeError, match="two is wrong") as error:
            run(work.fail_at_two, range(4))
        assert error.value.hint == "take three"

    def test_a_dead_process_is_replaced_on_its_node(self, tmp_path):
        assert run(work.die_once, [tmp_path]) == {0: "done"}

    def test_an_item_that_always_kills_its_process_is_named(self):
        with pytest.raises(RespikeError, match="died 3 times at 41"):
            run(work.die, [41])

    def test_a_hanging_process_is_killed_on_its_node(self):
        done = run(work.hang_if_harmful, [work.Item(0), work.Item(1)], retry=work.make_harmless, timeout_seconds=0.5)
        assert done[0] == ()
        assert [(death.is_timeout, death.last_event) for death in done[1]] == [(True, ("at", 1))]

    def test_tasks_share_a_process(self):
        assert len(set(run(work.process_id, range(5), 1).values())) == 1

    def test_the_item_of_a_lost_ray_worker_is_retried(self, tmp_path):
        assert run(lose_task_once, [tmp_path]) == {0: "done"}

    def test_an_item_that_is_always_lost_is_named(self):
        with pytest.raises(RespikeError, match="died 3 times at 41: it was lost"):
            run(lose_task, [41])

    def test_items_lost_together_are_retried_alone(self):
        items = [work.Item(number) for number in range(20)]
        done = run(lose_task_at_five, items, 1, retry=work.make_harmless)
        assert {number: deaths for number, deaths in done.items() if deaths} == {
            5: (WorkerDeath(last_event=None, exit_code=None),)
        }
        assert len(done) == 20

    def test_stopping_half_way_leaves_no_process(self):
        results = ray_executor.run(Job(function=work.send_events), [0.01, 30.0], 2, lambda worker, event: None)
        next(results)
        before = time.monotonic()
        results.close()
        assert time.monotonic() - before < 10
        deadline = time.monotonic() + 20
        while [child for child in psutil.Process().children(recursive=True) if "import serve" in command(child)]:
            assert time.monotonic() < deadline, "a process outlived the run"
            time.sleep(0.1)

    def test_an_exception_of_a_signal_handler_ends_the_run(self):
        class Stopped(BaseException):
            pass

        def stop(number, frame):
            raise Stopped

        before = signal.signal(signal.SIGTERM, stop)
        timer = threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        timer.start()
        try:
            with pytest.raises(Stopped):
                run(work.send_events, [60.0])
        finally:
            timer.cancel()
            signal.signal(signal.SIGTERM, before)


def command(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379"])
def test_a_cluster_that_does_not_answer_is_named_soon(address):
    started = time.monotonic()
    with pytest.raises(RespikeError, match=f"no Ray cluster answers at {address}"):
        connect_in_new_process(address)
    # Ray itself would try for more than six minutes
    assert time.monotonic() - started < 120


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(RespikeError, match="is not the address of a Ray cluster's head"):
        connect_in_new_process(address)


def connect_in_new_process(address):
    """Connect in a process that has no Ray instance yet."""
    code = (
        "from respike.data.executors import ray as ray_executor\nfrom respike.data.executors.base import Job\n"
        "from respike.common.errors import RespikeError\n"
        "try: list(ray_executor.run(Job(function=print), [1], 1, print, address=%r))\n"
        "except RespikeError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code % address], capture_output=True, text=True, check=True)
    raise RespikeError(answer.stdout.strip())


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RespikeError, match=r"pip install 'respike\[ray\]'"):
        run(work.square, [1])


@pytest.mark.slow
def test_the_items_of_a_lost_node_are_done_elsewhere():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 128 << 20})
    second = cluster.add_node(num_cpus=1, object_store_memory=128 << 20)
    cluster.wait_for_nodes()
    try:
        results = ray_executor.run(
            Job(function=work_slowly), range(30), 2, lambda worker, event: None, address=cluster.address
        )
        done = [next(results)]
        while len({node for _, node in done}) < 2:
            done.append(next(results))
        # the other node is in the middle of an item now
        cluster.remove_node(second, allow_graceful=False)
        done += list(results)
        assert sorted(index for index, _ in done) == list(range(30))
    finally:
        cluster.shutdown()
