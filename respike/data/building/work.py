"""Work: what a worker does with a task, wherever it runs: look whether it sees what it needs, build, deliver."""

import os
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from respike.data.building.build import build_shard
from respike.data.building.plan import STATE_FOLDER, Mark, ShardTask
from respike.data.engines.base import Report, Settling
from respike.data.remote.storage import RemoteFolder
from respike.errors import RespikeError
from respike.files import seal


def make_shard(remote: RemoteFolder | None, task: ShardTask, report: Report) -> Settling[Mark]:
    """Build a shard where the task says, or on this machine to be delivered to `remote`; once settled it stands there.

    Raises RespikeError where this machine sees none of the videos that were seen when they were listed, or not the
    output folder: on a cluster that is a file system which one node lacks, and must not make its videos count as
    missing.
    """
    _check_sight(task)
    if remote is None:
        if not task.path.parent.is_dir():
            raise RespikeError(
                f"{socket.gethostname()} does not see {task.path.parent}",
                "give an --out that every node sees under one path, or a remote address",
            )
        return build_shard(task, report)
    # on the machine that asked, its own scratch folder, which it clears whatever becomes of this process
    near = task.path.parent if task.path.parent.is_dir() else None
    with ExitStack() as unfinished:
        scratch = Path(unfinished.enter_context(tempfile.TemporaryDirectory(prefix="respike-", dir=near)))
        here = replace(task, path=scratch / task.name, mark_path=scratch / "mark.json")
        built = build_shard(here, report)
        return Settling(partial(_deliver, remote, here, built, unfinished.pop_all()))


def mark_name(shard: str) -> str:
    """Where the finished-mark of a shard stands in the output folder."""
    return f"{STATE_FOLDER}/done/{shard}.json"


def _deliver(remote: RemoteFolder, here: ShardTask, built: Settling[Mark], scratch: ExitStack) -> Mark:
    """Bring a shard from the scratch folder to `remote`, however long the network takes."""
    with scratch:
        mark = built.settle()
        if here.path.exists():
            remote.remove(mark_name(here.name))
            remote.upload(here.path, here.name)
        elif mark["shard"] is None:
            remote.remove(here.name)
        # the mark after the shard: it promises that the shard stands there
        remote.write(mark_name(here.name), seal(mark))
        return mark


def _check_sight(task: ShardTask) -> None:
    # where the machine that planned saw nothing either, they are just missing: links to a disk that is gone
    if not task.num_source_bytes:
        return
    paths = [video.path for video in task.videos if video.path is not None]
    if paths and not any(map(os.path.exists, paths)):
        raise RespikeError(
            f"{socket.gethostname()} sees none of the {len(paths)} videos of {task.name} that were listed, "
            f"{paths[0]} for one",
            "every machine that takes part must see --root under the same path; then run the same command again",
        )
