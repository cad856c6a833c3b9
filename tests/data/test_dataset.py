"""Dataset: clips by number, holding out, and the cache of remote shards."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from respike.common import storage
from respike.common.errors import RespikeError, ShardError
from respike.common.files import seal, sha256_of_file
from respike.common.processes import count_open_files
from respike.common.storage import RemoteFolder
from respike.data import dataset as dataset_module
from respike.data import open_shards
from respike.data.executors.base import run_serially
from respike.data.index import read_skipped
from respike.data.preparation import PrepareConfig, prepare

from tests.conftest import listing_of


def test_whole_sources_are_held_out(shards):
    train, held = open_shards(shards, "train").hold_out(0.3, seed=0)
    groups = [{row.group for row in part.clips} for part in (train, held)]
    assert groups[1]
    assert groups[0].isdisjoint(groups[1])
    assert len(train) + len(held) == len(open_shards(shards, "train"))
    assert {row.label for row in held.clips} == {0, 1}


def test_a_fraction_of_zero_holds_out_nothing(shards):
    dataset = open_shards(shards, "train")
    train, held = dataset.hold_out(0)
    assert (len(train), len(held)) == (len(dataset), 0)


def test_an_unknown_subset_lists_the_subsets(shards):
    with pytest.raises(RespikeError, match="test, train"):
        open_shards(shards, "val")


def test_a_folder_without_an_index_is_no_dataset(tmp_path):
    with pytest.raises(ShardError, match=r"no dataset\.json"):
        open_shards(tmp_path)


def test_a_sample_that_contradicts_the_index_is_named(shards):
    dataset = open_shards(shards, "train")
    dataset.clips[0] = dataclasses.replace(dataset.clips[0], label=1 - dataset.clips[0].label)
    with pytest.raises(ShardError, match="the index says"):
        dataset[0]


def test_a_remote_set_reads_as_a_local_one(shards, remote):
    remote_set, local_set = open_shards(remote.address, "test"), open_shards(shards, "test")
    assert remote_set.spec == local_set.spec
    np.testing.assert_array_equal(remote_set[0].keys, local_set[0].keys)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "FIRST_PAUSE_SECONDS", 0)
    return tmp_path / "cache" / "shards"


@pytest.fixture
def remote(shards, tmp_path, cache):
    """Return a remote copy of the shards."""
    folder = RemoteFolder(f"memory://{tmp_path.name}/set")
    for path in shards.iterdir():
        if path.is_file():
            folder.write(path.name, path.read_bytes())
    return folder


def cached(cache):
    return sorted(path.name for path in cache.glob("*/*.tar"))


def rewrite_index(folder, change):
    """Change the index at the address and seal it again, as a new run of prepare would."""
    value = json.loads(folder.read("dataset.json"))
    del value["sha256"]
    change(value)
    folder.write("dataset.json", seal(value, indent=1))


def test_a_subset_alone_is_downloaded_and_once(remote, cache, monkeypatch):
    dataset = open_shards(remote.address, "test")
    assert cached(cache) == ["test-000000.tar"]
    monkeypatch.setattr(RemoteFolder, "download", None)  # a second download would fail
    np.testing.assert_array_equal(open_shards(remote.address, "test")[0].keys, dataset[0].keys)


def test_the_skipped_list_follows_the_index(tmp_path, cache, video_folder):
    listing = listing_of(video_folder)
    videos = (dataclasses.replace(listing.videos[0], path=None), *listing.videos[1:])
    out = tmp_path / "out"
    prepare(dataclasses.replace(listing, videos=videos), out, PrepareConfig(short_side=32), executor=run_serially)
    remote = RemoteFolder(f"memory://{tmp_path.name}/skipped")
    for path in out.iterdir():
        if path.is_file():
            remote.write(path.name, path.read_bytes())
    (row,) = read_skipped(open_shards(remote.address, "test").index)
    assert (row.video, row.subset) == (videos[0].video_id, "train")
    remote.remove("skipped.jsonl")
    assert read_skipped(open_shards(remote.address, "test").index) is None


def test_a_changed_shard_of_the_same_size_is_noticed(remote, shards, cache, tmp_path):
    assert open_shards(remote.address, "test")[0].info.width == 64
    changed = tmp_path / "changed.tar"
    changed.write_bytes((shards / "test-000000.tar").read_bytes().replace(b'"width":64', b'"width":46'))
    remote.upload(changed, "test-000000.tar")

    def change(value):
        row = next(row for row in value["shards"] if row["name"] == "test-000000.tar")
        row["sha256"] = sha256_of_file(changed)

    rewrite_index(remote, change)
    assert open_shards(remote.address, "test")[0].info.width == 46


def test_a_shard_of_another_checksum_is_refused_and_deleted(remote, shards, cache):
    content = bytearray((shards / "test-000000.tar").read_bytes())
    content[1000] ^= 1
    remote.write("test-000000.tar", bytes(content))
    with pytest.raises(ShardError, match=r"test-000000\.tar holds .* bytes of SHA-256"):
        open_shards(remote.address, "test")
    assert cached(cache) == []
    assert not list(cache.rglob("*.tmp"))


def test_a_partial_download_is_never_used(remote, cache):
    whole = open_shards(remote.address, "test")[0].keys
    (path,) = cache.glob("*/test-000000.tar")
    path.with_name(".test-000000.tar.tmp").write_bytes(path.read_bytes()[:700])
    path.write_bytes(path.read_bytes()[:1024])
    np.testing.assert_array_equal(open_shards(remote.address, "test")[0].keys, whole)


def test_a_worker_downloads_what_its_machine_lacks(remote, cache):
    dataset = open_shards(remote.address, "test")
    copy = pickle.loads(pickle.dumps(dataset.select([0])))
    (path,) = cache.glob("*/test-000000.tar")
    path.unlink()
    np.testing.assert_array_equal(copy[0].keys, dataset[0].keys)


@pytest.mark.parametrize(("field", "value"), [("name", "../../escape.tar"), ("sha256", "../escape")])
def test_an_index_cannot_lead_out_of_the_cache(remote, cache, field, value):
    def change(index):
        index["shards"][0][field] = value

    rewrite_index(remote, change)
    with pytest.raises(ShardError):
        open_shards(remote.address)
    assert not list(cache.parent.rglob("*escape*"))


def test_the_cache_is_for_its_user_alone(remote, cache):
    open_shards(remote.address, "test")
    assert cache.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o777)
    with pytest.raises(RespikeError, match="open to other users"):
        open_shards(remote.address, "test")


def test_an_address_without_an_index_is_no_dataset(cache):
    with pytest.raises(ShardError, match=r"no dataset\.json at memory://nothing"):
        open_shards("memory://nothing/here")


def test_a_forbidden_skipped_list_counts_as_missing(remote, cache, monkeypatch):
    rewrite_index(remote, lambda value: value["videos"].update(listed=value["videos"]["listed"] + 1, skipped=1))
    read = RemoteFolder.read

    def refuse(self, name):
        if name == "skipped.jsonl":
            # the answer of a store for a missing name where listing is not allowed
            raise RespikeError("cannot read skipped.jsonl: Forbidden")
        return read(self, name)

    monkeypatch.setattr(RemoteFolder, "read", refuse)
    assert len(open_shards(remote.address, "test")) > 0


def test_few_shards_stay_open_where_few_files_may_be_open(shards, monkeypatch):
    everything = [clip.keys.sum() for clip in open_shards(shards)]
    monkeypatch.setattr(dataset_module, "raise_file_limit", lambda: 0)
    monkeypatch.setattr(dataset_module, "MIN_OPEN_SHARDS", 1)
    few = open_shards(shards)
    assert len(few.index.shards) > 1
    num_open = count_open_files()
    assert [few[number].keys.sum() for number in range(len(few))] == everything
    assert count_open_files() <= num_open + 1
