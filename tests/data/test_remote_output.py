"""Remote output: the same bytes as in a folder, even on a faulty store, and one run at a time."""

import json
import os
import threading
import time

import pytest
from respike.common import storage
from respike.common.errors import MismatchError, RespikeError
from respike.common.storage import RemoteFolder
from respike.data import open_shards, remote_output
from respike.data.executors.base import run_serially
from respike.data.plan import Part
from respike.data.preparation import PrepareConfig, join_parts, prepare
from respike.data.remote_output import open_output

from tests.data.conftest import SMALL
from tests.data.stores import make_store


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_PAUSE_SECONDS", 0)


@pytest.fixture
def memory(tmp_path):
    return f"memory://{tmp_path.name}/set"


def contents(address):
    folder = RemoteFolder(address)
    return {name: folder.read(name) for name in folder.file_sizes()}


def test_a_store_gets_the_bytes_of_a_folder(memory, listing, undisturbed):
    summary = prepare(listing, memory, SMALL)
    assert contents(memory) == undisturbed
    assert (str(summary.out), summary.written, summary.num_built) == (memory, 12, 5)
    assert summary.num_bytes == sum(len(content) for name, content in undisturbed.items() if name.endswith(".tar"))


def test_a_file_address_may_name_a_new_folder(tmp_path, listing, undisturbed):
    address = f"file://{tmp_path}/new/set"
    prepare(listing, address, SMALL)
    assert contents(address) == undisturbed


def test_worker_processes_deliver_to_the_store(tmp_path, listing, undisturbed):
    address = make_store(tmp_path / "store")
    prepare(listing, address, SMALL, num_workers=2)
    assert contents(address) == undisturbed


def test_finished_shards_at_the_address_are_kept(memory, listing, undisturbed, monkeypatch):
    prepare(listing, memory, SMALL)
    monkeypatch.setattr(RemoteFolder, "upload", None)  # a second upload would fail
    assert prepare(listing, memory, SMALL).num_built == 0
    assert contents(memory) == undisturbed


def test_only_missing_and_cut_shards_are_made_again(memory, listing, undisturbed):
    prepare(listing, memory, SMALL)
    folder = RemoteFolder(memory)
    folder.remove("test-000000.tar")
    folder.write("train-000001.tar", undisturbed["train-000001.tar"][:-512])
    assert prepare(listing, memory, SMALL).num_built == 2
    assert contents(memory) == undisturbed


def test_other_settings_are_refused_with_the_address(memory, listing, undisturbed):
    prepare(listing, memory, SMALL)
    with pytest.raises(MismatchError, match=f"{memory} was prepared with other settings: threshold 8 → 16"):
        prepare(listing, memory, PrepareConfig(videos_per_shard=3, short_side=32, threshold=16))
    assert contents(memory) == undisturbed


def test_overwrite_removes_the_shards_of_an_earlier_plan(memory, listing, undisturbed):
    prepare(listing, memory, PrepareConfig(videos_per_shard=1, short_side=32))
    prepare(listing, memory, SMALL, existing="overwrite")
    assert contents(memory) == undisturbed


def test_a_shard_without_a_manifest_is_removed(memory, listing, undisturbed):
    prepare(listing, memory, SMALL)
    RemoteFolder(memory).write("train-000007.tar", "a shard of yesterday")
    prepare(listing, memory, SMALL)
    assert contents(memory) == undisturbed


def test_files_of_others_are_never_replaced(memory, listing):
    RemoteFolder(memory).write("dataset.json", "mine")
    with pytest.raises(RespikeError, match="there is no record that respike wrote it"):
        prepare(listing, memory, SMALL)
    assert RemoteFolder(memory).read("dataset.json") == b"mine"


def test_parts_join_at_the_address(memory, listing, undisturbed):
    for number in (1, 2):
        with pytest.raises(RespikeError):
            open_shards(memory)
        prepare(listing, memory, SMALL, part=Part(number=number, count=2))
    join_parts(memory)
    assert contents(memory) == undisturbed


def test_a_missing_part_is_named(memory, listing):
    prepare(listing, memory, SMALL, part=Part(number=1, count=2))
    with pytest.raises(RespikeError, match=f"shards of {memory} are not finished: 2 of 5") as error:
        join_parts(memory)
    assert error.value.hint == "prepare these parts: 2/2"


@pytest.mark.parametrize("faults", [{"fail_every": 3}, {"cut_every": 3}, {"flip_every": 3}])
def test_a_store_that_sometimes_fails_gets_every_byte(tmp_path, listing, undisturbed, faults):
    address = make_store(tmp_path / "store", **faults)
    prepare(listing, address, SMALL, executor=run_serially)
    assert contents(address) == undisturbed


@pytest.mark.parametrize("gone_after", [0, 4, 9, 14, 17])
def test_after_a_store_was_out_of_reach_a_run_goes_on(tmp_path, listing, undisturbed, gone_after):
    address = make_store(tmp_path / "store", gone_after=gone_after)
    with pytest.raises(RespikeError, match="no route to host") as error:
        prepare(listing, address, SMALL, executor=run_serially)
    assert "\n" not in str(error.value)
    make_store(tmp_path / "store")
    assert "dataset.json" not in RemoteFolder(address).file_sizes()
    summary = prepare(listing, address, SMALL, executor=run_serially)
    assert contents(address) == undisturbed
    assert summary.num_built < 5 or gone_after < 9


def test_a_store_that_cuts_every_file_gets_no_index(tmp_path, listing):
    address = make_store(tmp_path / "store", cut_every=1)
    with pytest.raises(RespikeError, match="cannot write"):
        prepare(listing, address, SMALL, executor=run_serially)
    assert "dataset.json" not in RemoteFolder(address).file_sizes()


def test_half_an_upload_is_removed(tmp_path, listing, undisturbed):
    address = make_store(tmp_path / "store")
    prepare(listing, address, SMALL, executor=run_serially)
    folder = RemoteFolder(address)
    (tmp_path / "store" / "set" / ".train-000000.tar.0badcafe.tmp").write_bytes(b"half")
    folder.remove("train-000000.tar")
    prepare(listing, address, SMALL, executor=run_serially)
    assert contents(address) == undisturbed


def test_the_scratch_folder_is_removed(memory, listing, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    prepare(listing, memory, SMALL)
    assert list(scratch.iterdir()) == []


class TestLock:
    """One run at a time."""

    def write_owner(self, memory, **changes):
        owner = {"id": "x", "pid": 1, "host": "elsewhere", "for": "respike prepare", "renewed": time.time()}
        RemoteFolder(memory).write(".respike/lock", json.dumps(owner | changes))

    def test_a_second_run_is_refused_with_its_owner(self, memory, listing):
        self.write_owner(memory)
        with pytest.raises(RespikeError, match=r"in use: process 1 on elsewhere \(respike prepare\)"):
            prepare(listing, memory, SMALL)

    @pytest.mark.parametrize(
        "changes",
        [
            {"free": True},
            {"renewed": time.time() - remote_output.EXPIRE_SECONDS - 1},
            {"host": os.uname().nodename, "pid": 2**22 + 1},
        ],
    )
    def test_the_lock_of_a_dead_run_is_taken_over(self, memory, listing, changes):
        self.write_owner(memory, **changes)
        prepare(listing, memory, SMALL)
        assert RemoteFolder(memory).read(".respike/lock") is None

    @pytest.mark.parametrize("scheme", ["memory", "file"])
    def test_of_many_runs_at_once_one_gets_the_lock(self, tmp_path, scheme):
        folder = RemoteFolder(f"{scheme}://{tmp_path}/set")
        ready, results = threading.Barrier(8), []

        def try_to_create(number):
            ready.wait()
            results.append(folder.create("lock", str(number)))

        threads = [threading.Thread(target=try_to_create, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [False] * 7 + [True]

    def test_a_lock_whose_answer_was_lost_belongs_to_its_run(self, memory, monkeypatch):
        create = RemoteFolder.create
        monkeypatch.setattr(RemoteFolder, "create", lambda *args: create(*args) and create(*args))
        folder = RemoteFolder(memory)
        with remote_output.remote_lock(folder, "lock", "a test"):
            assert json.loads(folder.read("lock"))["for"] == "a test"
        assert folder.read("lock") is None

    def test_a_run_that_was_overtaken_gets_no_lock(self, memory, monkeypatch):
        monkeypatch.setattr(RemoteFolder, "create", lambda *args: self.write_owner(memory) or True)
        folder = RemoteFolder(f"{memory}/.respike")
        with pytest.raises(RespikeError, match="process 1 on elsewhere"):
            remote_output.RemoteLock(folder, "lock", "a test").acquire()

    def test_a_part_and_a_whole_run_refuse_each_other(self, memory, listing):
        with open_output(memory) as whole, whole.lock(), pytest.raises(RespikeError, match="in use"):
            prepare(listing, memory, SMALL, part=Part(number=1, count=2))
        with open_output(memory) as part, part.lock(Part(number=1, count=2)):
            with pytest.raises(RespikeError, match="in use"):
                prepare(listing, memory, SMALL)
            with open_output(memory) as other, other.lock(Part(number=2, count=2)):
                pass

    def test_a_run_that_lost_its_lock_writes_no_index(self, memory, listing):
        with open_output(memory) as output, output.lock():
            self.write_owner(memory)
            with pytest.raises(RespikeError, match="taken over by process 1 on elsewhere"):
                output.publish()

    def test_the_owner_renews_its_lock(self, memory, monkeypatch):
        monkeypatch.setattr(remote_output, "RENEW_SECONDS", 0.05)
        folder = RemoteFolder(memory)
        with remote_output.remote_lock(folder, "lock", "a test"):
            first = json.loads(folder.read("lock"))["renewed"]
            deadline = time.monotonic() + 20
            while json.loads(folder.read("lock"))["renewed"] == first:
                assert time.monotonic() < deadline
                time.sleep(0.02)
