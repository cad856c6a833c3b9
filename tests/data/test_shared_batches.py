"""Shared batches: a batch stays unchanged while anything refers to it, and its memory is used again."""

import errno
import os
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from respike.common.errors import RespikeWarning
from respike.data import loader, make_loader, open_shards, shared_batches
from respike.data.shared_batches import BatchMemory

NUM_SLOTS = 2


@pytest.fixture
def memories(monkeypatch):
    """Return the memory of the main process and that of its one worker, both in this process."""
    reader = BatchMemory(1, NUM_SLOTS)
    monkeypatch.setattr(shared_batches, "get_worker_info", lambda: SimpleNamespace(id=0))
    return reader, ForkingPickler.loads(ForkingPickler.dumps(reader))


def unchanged(content):
    return content


def send(worker, value, num_bytes=64):
    """Return a batch filled with `value`, as it arrives in the main process."""
    [made] = worker.allocate(num_bytes, 1)
    made.content.fill_(value)
    made.finish(unchanged)
    return ForkingPickler.loads(ForkingPickler.dumps(made))


def test_memory_is_reused_once_a_batch_is_dropped(memories):
    _, worker = memories
    places = set()
    for value in range(5):
        batch = send(worker, value)
        assert batch.tolist() == [value] * 64
        places.add(batch.data_ptr())
        del batch
    assert len(places) == 1


@pytest.mark.parametrize(
    "look",
    [
        lambda batch: batch,
        lambda batch: batch[3:],
        lambda batch: batch.view(torch.int16)[::2],
        lambda batch: batch.numpy()[5:],
        lambda batch: np.from_dlpack(batch),
    ],
)
def test_a_batch_stays_while_anything_refers_to_it(memories, look):
    _, worker = memories
    kept = look(send(worker, 7))
    before = np.array(kept)
    others = [send(worker, value) for value in range(3)]
    for value in range(3):
        send(worker, 100 + value)
    np.testing.assert_array_equal(np.array(kept), before)
    assert [int(other[0]) for other in others] == [0, 1, 2]


def test_batches_made_together_do_not_overlap(memories):
    _, worker = memories
    made = worker.allocate(16, 5)
    assert len({one.content.data_ptr() for one in made}) == 5
    for value, one in enumerate(made):
        one.content.fill_(value)
        one.finish(unchanged)
    arrived = [ForkingPickler.loads(ForkingPickler.dumps(one)) for one in made]
    assert [batch.tolist() for batch in arrived] == [[value] * 16 for value in range(5)]


def test_an_abandoned_batch_costs_no_slot(memories):
    _, worker = memories
    for _ in range(3):
        # as when a sample is damaged
        worker.allocate(64, NUM_SLOTS)
    batches = [send(worker, value) for value in range(NUM_SLOTS)]
    assert [int(batch[0]) for batch in batches] == list(range(NUM_SLOTS))
    addresses = {batch.data_ptr() for batch in batches}
    del batches
    assert {send(worker, 1).data_ptr(), send(worker, 2).data_ptr()} <= addresses


def test_batches_of_another_size_get_new_memory(memories):
    _, worker = memories
    for num_bytes in (64, 64, 128, 32):
        assert send(worker, 9, num_bytes).tolist() == [9] * num_bytes


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_frees_nothing(memories):
    _, worker = memories
    batch = send(worker, 5)
    if (child := os.fork()) == 0:
        del batch
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    others = [send(worker, value) for value in range(NUM_SLOTS)]
    assert batch.tolist() == [5] * 64
    assert [int(other[0]) for other in others] == list(range(NUM_SLOTS))


def test_a_batch_outlives_the_memory_of_its_loader(memories):
    reader, worker = memories
    batch = send(worker, 5)
    del reader, worker
    assert batch.tolist() == [5] * 64


@pytest.mark.parametrize("num_crops", [1, 3])
def test_workers_use_few_slots_and_give_equal_batches(shards, num_crops):
    dataset, num_workers = open_shards(shards), 2 if num_crops == 1 else 1
    settings = {"batch_size": 2, "training": False, "image_size": 16, "num_crops": num_crops}
    alone = list(make_loader(dataset, **settings))
    with_workers = make_loader(dataset, **settings, num_workers=num_workers)
    addresses = set()
    for number, batch in enumerate(with_workers):
        assert torch.equal(batch.keys, alone[number].keys)
        assert torch.equal(batch.residuals, alone[number].residuals)
        addresses.add(batch.residuals.data_ptr())
    num_ahead = 2 if num_crops == 1 else 1
    assert len(addresses) <= num_workers * (num_ahead + 2) * num_crops < len(alone)
    # more batches than slots, compared after all have arrived
    kept = [batch.residuals[1] for batch in with_workers]
    assert all(torch.equal(one, batch.residuals[1]) for one, batch in zip(kept, alone, strict=True))


def test_an_unfinished_pass_holds_no_memory(shards):
    loader = make_loader(open_shards(shards), batch_size=2, training=True, image_size=16, num_workers=1, seed=3)
    for _ in range(4):
        next(iter(loader))
    addresses = {batch.residuals.data_ptr() for batch in loader}
    assert len(addresses) <= 4


def run_out(tensor):
    raise RuntimeError("unable to allocate shared memory: No space left on device (28)")


def test_batches_arrive_without_shared_memory_and_one_warning(monkeypatch):
    warnings = []
    reader = BatchMemory(1, NUM_SLOTS, warnings.append)
    monkeypatch.setattr(shared_batches, "get_worker_info", lambda: SimpleNamespace(id=0))
    worker = ForkingPickler.loads(ForkingPickler.dumps(reader))
    shared = send(worker, 1)
    monkeypatch.setattr(torch.Tensor, "share_memory_", run_out)
    batches = [send(worker, value) for value in range(2, 5)]
    assert [int(batch[0]) for batch in (shared, *batches)] == [1, 2, 3, 4]
    assert all(len(set(batch.tolist())) == 1 for batch in batches)
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
    assert "--shm-size" in warnings[0]


def load(shards, **settings):
    batches = make_loader(open_shards(shards), batch_size=4, training=False, image_size=16, **settings)
    return [(batch.video_ids, batch.residuals.sum().item()) for batch in batches]


def test_a_loader_without_shared_memory_warns_once(shards, monkeypatch):
    expected = load(shards)
    monkeypatch.setattr(torch.Tensor, "share_memory_", run_out)
    with pytest.warns(RespikeWarning, match="memory cannot be shared") as warned:
        assert load(shards, num_workers=1) == expected
    assert len([each for each in warned if each.category is RespikeWarning]) == 1


def test_a_loader_without_semaphores_loads_without_workers(shards, monkeypatch):
    expected = load(shards)

    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # as with a read-only /dev/shm
    monkeypatch.setattr("multiprocessing.synchronize.Lock.__init__", refuse)
    with pytest.warns(RespikeWarning, match="without workers.*Read-only file system"):
        assert load(shards, num_workers=2) == expected


@pytest.mark.parametrize(("num_files", "text"), [(60, "batches take longer"), (30, "clips are loaded with")])
def test_a_loader_that_may_open_few_files_warns(shards, monkeypatch, num_files, text):
    expected = load(shards)
    monkeypatch.setattr(loader, "raise_file_limit", lambda: num_files)
    monkeypatch.setattr(loader, "count_open_files", lambda: 5)
    with pytest.warns(RespikeWarning, match=text) as warned:
        assert load(shards, num_workers=3) == expected
    assert "ulimit -n" in str(warned[0].message)
