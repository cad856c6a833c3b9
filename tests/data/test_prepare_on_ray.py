"""Prepare on Ray: the bytes of a local run, even if nodes are lost."""

import dataclasses
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.data.executors import ray as ray_executor
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare

from tests.conftest import contents
from tests.data.conftest import SMALL
from tests.data.stores import make_store

ray = pytest.importorskip("ray", reason="the extra respike[ray] is not installed")
# by default Ray's workers run at a lower priority than everything else, such as other tests
os.environ.update(RAY_worker_niceness="0")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one processor each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 128 << 20})
    made.add_node(num_cpus=1, object_store_memory=128 << 20)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture
def on_cluster(cluster):
    return partial(ray_executor.run, address=cluster.address)


def test_the_command_writes_the_same_bytes_on_ray(tmp_path, video_folder):
    command = [sys.executable, "-m", "respike", "prepare", "folder", "--root", str(video_folder)]
    command += ["--videos-per-shard", "6", "--workers", "2", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for name in ("local", "ray"):
        out = ["--out", str(tmp_path / name), "--engine", name]
        answer = subprocess.run([*command, *out], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")


@pytest.mark.slow
class TestOnTwoNodes:
    """All share one cluster; the last test removes a node."""

    def test_the_bytes_are_those_of_a_local_run(self, tmp_path, listing, undisturbed, on_cluster):
        prepare(listing, tmp_path / "out", SMALL, executor=on_cluster)
        assert contents(tmp_path / "out") == undisturbed

    def test_every_node_uploads_to_a_remote_address(self, tmp_path, listing, undisturbed, on_cluster):
        prepare(listing, make_store(tmp_path / "store"), SMALL, executor=on_cluster)
        assert contents(tmp_path / "store" / "set") == undisturbed

    def test_only_a_file_that_no_node_can_read_is_skipped(self, tmp_path, listing, on_cluster):
        victim = listing.videos[0].video_id
        broken = dataclasses.replace(
            listing, videos=(dataclasses.replace(listing.videos[0], path=tmp_path / "pipe.mp4"), *listing.videos[1:])
        )
        os.mkfifo(tmp_path / "pipe.mp4")
        summary = prepare(broken, tmp_path / "out", SMALL, executor=on_cluster, video_timeout_seconds=5)
        assert [row.video for row in summary.skipped_videos] == [victim]

    def test_a_node_that_does_not_see_the_videos_is_an_error(self, tmp_path, listing, on_cluster):
        (mount := tmp_path / "mount").mkdir()
        paths = [shutil.copy(v.path, mount / f"{number}.mp4") for number, v in enumerate(listing.videos)]
        videos = tuple(dataclasses.replace(v, path=p) for v, p in zip(listing.videos, paths, strict=True))

        def run(*arguments, **options):
            # the planning machine sees the videos, and no working machine does
            mount.rename(tmp_path / "unmounted")
            return on_cluster(*arguments, **options)

        with pytest.raises(RespikeError, match=r"sees none of the [23] listed videos"):
            prepare(dataclasses.replace(listing, videos=videos), tmp_path / "out", SMALL, executor=run)

    def test_a_lost_node_changes_no_byte(self, tmp_path, listing, cluster):
        # one video per shard, so that the node is lost in the middle of the run
        settings = PrepareConfig(videos_per_shard=1, short_side=32)
        prepare(listing, tmp_path / "local", settings, executor=run_serially)
        other = cluster.worker_nodes.copy().pop()
        lost = []

        def run(*arguments, **options):
            for number, result in enumerate(ray_executor.run(*arguments, address=cluster.address, **options)):
                yield result
                if number == 3:
                    cluster.remove_node(other, allow_graceful=False)
                    lost.append(other)

        summary = prepare(listing, tmp_path / "out", settings, executor=run)
        assert lost
        assert (summary.written, summary.num_built) == (12, 12)
        assert contents(tmp_path / "out") == contents(tmp_path / "local")
