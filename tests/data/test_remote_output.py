"""Remote output promises: the same bytes as in a folder, whatever the store does; what was finished there is kept."""

import json
import os
import time

import pytest
from respike.common import storage
from respike.common.errors import MismatchError, RespikeError
from respike.common.storage import RemoteFolder
from respike.data import open_shards, remote_output
from respike.data.plan import Part
from respike.data.preparation import PrepareConfig, join_parts, prepare
from respike.data.remote_output import open_output

from tests.data.conftest import SMALL
from tests.data.stores import make_store


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(storage, "_FIRST_PAUSE_SECONDS", 0)
    monkeypatch.setattr(remote_output, "_SETTLE_SECONDS", 0)


@pytest.fixture
def memory(tmp_path):
    return f"memory://{tmp_path.name}/set"


def contents(address):
    folder = RemoteFolder(address)
    return {name: folder.read(name) for name in folder.sizes()}


def test_a_store_gets_the_bytes_that_a_folder_gets(memory, listing, undisturbed):
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


def test_what_is_finished_at_the_address_is_kept(memory, listing, undisturbed, monkeypatch):
    prepare(listing, memory, SMALL)
    monkeypatch.setattr(RemoteFolder, "upload", None)  # a second upload would fail
    assert prepare(listing, memory, SMALL).num_built == 0
    assert contents(memory) == undisturbed


def test_a_shard_that_is_gone_or_cut_there_alone_is_made_again(memory, listing, undisturbed):
    prepare(listing, memory, SMALL)
    folder = RemoteFolder(memory)
    folder.remove("test-000000.tar")
    folder.write("train-000001.tar", undisturbed["train-000001.tar"][:-512])
    assert prepare(listing, memory, SMALL).num_built == 2
    assert contents(memory) == undisturbed


def test_other_settings_are_refused_by_the_name_of_the_address(memory, listing, undisturbed):
    prepare(listing, memory, SMALL)
    with pytest.raises(MismatchError, match=f"{memory} was prepared with other settings: threshold 8 → 16"):
        prepare(listing, memory, PrepareConfig(videos_per_shard=3, short_side=32, threshold=16))
    assert contents(memory) == undisturbed


def test_an_earlier_plan_leaves_nothing_behind(memory, listing, undisturbed):
    prepare(listing, memory, PrepareConfig(videos_per_shard=1, short_side=32))
    prepare(listing, memory, SMALL, existing="overwrite")
    assert contents(memory) == undisturbed


def test_a_shard_without_a_mark_of_an_earlier_plan_does_not_stay(memory, listing, undisturbed):
    prepare(listing, memory, SMALL)
    RemoteFolder(memory).write("train-000007.tar", "a shard of yesterday")
    prepare(listing, memory, SMALL)
    assert contents(memory) == undisturbed


def test_files_of_others_are_not_written_over(memory, listing):
    RemoteFolder(memory).write("dataset.json", "mine")
    with pytest.raises(RespikeError, match="keeps no record of having made it there"):
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
    with pytest.raises(RespikeError, match=f"2 of 5 shards of {memory} are not finished") as error:
        join_parts(memory)
    assert "--part 2/2" in error.value.hint


@pytest.mark.parametrize("faults", [{"fail_every": 3}, {"cut_every": 3}, {"flip_every": 3}])
def test_a_store_that_fails_now_and_then_gets_every_byte(tmp_path, listing, undisturbed, faults):
    address = make_store(tmp_path / "store", **faults)
    prepare(listing, address, SMALL, num_workers=1)
    assert contents(address) == undisturbed


@pytest.mark.parametrize("gone_after", [0, 4, 9, 14, 17])
def test_a_store_that_disappears_is_one_error_and_a_later_run_goes_on(tmp_path, listing, undisturbed, gone_after):
    address = make_store(tmp_path / "store", gone_after=gone_after)
    with pytest.raises(RespikeError, match="no route to host") as error:
        prepare(listing, address, SMALL, num_workers=1)
    assert "\n" not in str(error.value)
    make_store(tmp_path / "store")
    assert "dataset.json" not in RemoteFolder(address).sizes()
    summary = prepare(listing, address, SMALL, num_workers=1)
    assert contents(address) == undisturbed
    assert summary.num_built < 5 or gone_after < 9


def test_a_store_that_cuts_all_it_is_given_never_gets_an_index(tmp_path, listing):
    address = make_store(tmp_path / "store", cut_every=1)
    with pytest.raises(RespikeError, match="cannot write"):
        prepare(listing, address, SMALL, num_workers=1)
    assert "dataset.json" not in RemoteFolder(address).sizes()


def test_no_half_upload_is_left_lying_there(tmp_path, listing, undisturbed):
    address = make_store(tmp_path / "store")
    prepare(listing, address, SMALL, num_workers=1)
    folder = RemoteFolder(address)
    (tmp_path / "store" / "set" / ".train-000000.tar.0badcafe.tmp").write_bytes(b"half")
    folder.remove("train-000000.tar")
    prepare(listing, address, SMALL, num_workers=1)
    assert contents(address) == undisturbed


def test_nothing_of_the_scratch_folder_is_left(memory, listing, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    prepare(listing, memory, SMALL)
    assert list(scratch.iterdir()) == []


class TestLock:
    """The lock that a store does not have."""

    def owner(self, memory, **changes):
        mine = {"id": "x", "pid": 1, "host": "elsewhere", "for": "respike prepare", "renewed": time.time()}
        RemoteFolder(memory).write(".respike/lock", json.dumps(mine | {"free": False} | changes))

    def test_a_second_run_is_refused_with_the_owners_name(self, memory, listing):
        self.owner(memory)
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
    def test_a_lock_that_nobody_holds_is_taken_over(self, memory, listing, changes):
        self.owner(memory, **changes)
        prepare(listing, memory, SMALL)
        assert json.loads(RemoteFolder(memory).read(".respike/lock"))["free"]

    def test_a_part_is_refused_while_a_whole_run_works_and_the_other_way_round(self, memory, listing):
        with open_output(memory) as whole, whole.lock(), pytest.raises(RespikeError, match="in use"):
            prepare(listing, memory, SMALL, part=Part(number=1, count=2))
        with open_output(memory) as part, part.lock(Part(number=1, count=2)):
            with pytest.raises(RespikeError, match="in use"):
                prepare(listing, memory, SMALL)
            with open_output(memory) as other, other.lock(Part(number=2, count=2)):
                pass

    def test_a_run_that_lost_its_lock_writes_no_index(self, memory, listing):
        with open_output(memory) as output, output.lock():
            self.owner(memory)
            with pytest.raises(RespikeError, match="taken over by process 1 on elsewhere"):
                output.publish()

    def test_the_owner_tells_that_it_lives(self, memory, monkeypatch):
        monkeypatch.setattr(remote_output, "RENEW_SECONDS", 0.05)
        folder = RemoteFolder(memory)
        with remote_output.remote_lock(folder, "lock", "a test"):
            first = json.loads(folder.read("lock"))["renewed"]
            deadline = time.monotonic() + 20
            while json.loads(folder.read("lock"))["renewed"] == first:
                assert time.monotonic() < deadline
                time.sleep(0.02)
