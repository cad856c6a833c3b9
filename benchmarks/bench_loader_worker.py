"""Time to load a clip in one worker process and send it to the training process: respike and torch's DataLoader.

    python benchmarks/bench_loader_worker.py [--clips FOLDER] [--batch-size 8] [--rounds 5] [--json PATH]

Both loaders make batches of the same clips (16 frames at 224 x 224, random resized crops) in one worker process. This
process reads one byte of every page of a batch, as a copy to an accelerator would. respike gives key frames (uint8) and
residuals (int16); the DataLoader reads JPEG files and gives frames (uint8), collated and sent by torch. Processor time
is the sum of both processes. The worker starts before the first round. `respike, no worker` uses this process alone.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from respike.common.processes import keep_memory
from respike.data import make_loader
from respike.data.transforms import random_view
from torch.utils.data import DataLoader, Dataset

import bench_loader
import harness
import natural

SIZE = bench_loader.SIZE
_PAGE = 4096


class JpegClips(Dataset[torch.Tensor]):
    """Clips whose frames are JPEG files, uint8 `[16, 3, 224, 224]` each. All are repeated `num_epochs` times."""

    def __init__(self, folder: Path, clips: list[list[int]], num_epochs: int) -> None:
        self._folder, self._clips, self._num_epochs = folder, clips, num_epochs

    def __len__(self) -> int:
        return len(self._clips) * self._num_epochs

    def __getitem__(self, number: int) -> torch.Tensor:
        indices = self._clips[number % len(self._clips)]
        frames = np.stack([bench_loader.read_jpeg(self._folder / f"{index:05d}.jpg") for index in indices])
        clip: NDArray[np.uint8] = np.empty((len(indices), 3, SIZE, SIZE), np.uint8)
        view = random_view(*frames.shape[1:3], np.random.default_rng(number), flip=True)
        bench_loader.write_frames(frames, view, clip)
        return torch.from_numpy(clip)


def main() -> None:
    """Make videos and shards; measure and report each video."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    set_up_worker(0)
    with tempfile.TemporaryDirectory() as scratch:
        videos = [natural.make_natural_clip(Path(scratch), kind) for kind in natural.KINDS]
        if arguments.clips is not None and arguments.clips.is_dir():
            videos += sorted(path for path in arguments.clips.iterdir() if path.is_file())
        for video in videos:
            comparison = compare(video, Path(scratch), arguments)
            path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{video.stem}")
            harness.report(comparison, path)


def compare(video: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants on one video."""
    sampling = bench_loader.SAMPLING_BY_SUFFIX.get(video.suffix, "uniform")
    work = bench_loader.prepare_video(video, sampling, scratch / f"shards-{video.stem}")
    jpegs = bench_loader.write_jpegs(video, scratch / f"frames-{video.stem}")
    num_epochs = max(1, arguments.num_clips // len(work.clips))
    # repeat the clips in one pass, because each pass starts with an empty queue
    shards = work.shards.select([*range(len(work.clips))] * num_epochs)
    size = arguments.batch_size
    loaders: dict[str, Iterable[Any]] = {
        name: make_loader(shards, batch_size=size, training=True, image_size=SIZE, num_workers=num_workers)
        for name, num_workers in (("respike", 1), ("respike, no worker", 0))
    }
    loaders["jpeg files"] = DataLoader(
        JpegClips(jpegs, work.clips, num_epochs),
        batch_size=size,
        drop_last=True,
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=set_up_worker,
        multiprocessing_context="spawn",
    )
    num_clips = len(shards) // size * size
    return harness.compare(
        f"loader with a worker, {video.name}",
        {name: lambda loader=loader: read(loader, num_clips) for name, loader in loaders.items()},
        baseline="respike",
        rounds=arguments.rounds,
        units=dict.fromkeys(loaders, num_clips),
        unit="clip",
        facts={"clips": len(work.clips), "sampling": sampling, "batch size": size},
    )


def read(loader: Iterable[Any], num_clips: int) -> None:
    """Read one pass of a loader, one byte of every page."""
    num_read = 0
    for batch in loader:
        tensors = [batch] if isinstance(batch, torch.Tensor) else [batch.keys, batch.residuals]
        num_read += len(tensors[0])
        for tensor in tensors:
            tensor.view(-1).view(torch.uint8)[::_PAGE].sum()
    assert num_read == num_clips


def set_up_worker(number: int) -> None:
    """Set up a process like the workers of respike."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    keep_memory()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--clips", type=Path, default=Path("../shared/clips"), help="folder of real videos; skipped if missing"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="clips a batch")
    parser.add_argument("--num-clips", type=int, default=160, help="approximate number of clips in a pass")


if __name__ == "__main__":
    main()
