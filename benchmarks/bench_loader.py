"""Time to load a clip of 16 frames from shards, compared with loading it from the video or from JPEG files.

    python benchmarks/bench_loader.py [--clips FOLDER] [--epochs 2] [--rounds 5] [--json PATH]

All variants load the same frames in one process with one thread, with random resized crops to 224 x 224, into batches
of 4 torch tensors without normalisation. respike gives key frames (uint8) and residuals (int16), the others frames
(uint8). Two more rows are respike with multi-scale crops, and with three crops of each clip as in an evaluation. Clips
of UCF101 videos are 16 consecutive frames; clips of Kinetics videos are 16 frames spread over the video. The JPEG files
(quality 90) and all other files are in the page cache. Times are ms a clip.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from respike.common.processes import keep_memory
from respike.data import make_loader, open_shards
from respike.data.dataset import ShardDataset
from respike.data.preparation import PrepareConfig, prepare
from respike.data.sampling import Sampling
from respike.data.transforms import View, random_view
from respike.types import CropKind, VideoListing, VideoRef

import harness
import natural

SIZE, BATCH_SIZE = 224, 4
PEERS = {"decord": "decord", "torchcodec": "torchcodec.decoders"}
# sampling of real videos by file type; the others are sampled uniformly
SAMPLING_BY_SUFFIX: dict[str, Sampling] = {".avi": "dense"}

# (video, frame indices) → RGB frames [T, H, W, 3]
Reader = Callable[[Path, list[int]], Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A video, its shards, and the frame indices of the clips in them."""

    video: Path
    shards: ShardDataset
    clips: list[list[int]]


def main() -> None:
    """Make videos and shards; measure and report each video."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    # as in the worker processes of the loader
    keep_memory()
    with tempfile.TemporaryDirectory() as scratch:
        videos = [natural.make_natural_clip(Path(scratch), kind) for kind in natural.KINDS]
        if arguments.clips is not None and arguments.clips.is_dir():
            videos += sorted(path for path in arguments.clips.iterdir() if path.is_file())
        tries = {
            "decord": lambda: read_decord(videos[0], [0]),
            "torchcodec": lambda: read_torchcodec(videos[0], [0]),
        }
        found, left_out = harness.find_peers(PEERS, tries)
        for video in videos:
            sampling = SAMPLING_BY_SUFFIX.get(video.suffix, "uniform")
            comparison = compare(video, sampling, Path(scratch), arguments, found, left_out)
            path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{video.stem}")
            harness.report(comparison, path)


def compare(
    video: Path, sampling: Sampling, scratch: Path, arguments: argparse.Namespace, found: set[str], left_out: list[str]
) -> dict[str, Any]:
    """Measure all variants on one video."""
    work = prepare_video(video, sampling, scratch / f"shards-{video.stem}")
    jpegs = write_jpegs(video, scratch / f"frames-{video.stem}")
    readers: dict[str, Reader] = {
        "decord": read_decord,
        "torchcodec": read_torchcodec,
        "pyav": read_pyav,
        "jpeg files": lambda _, indices: np.stack([read_jpeg(jpegs / f"{index:05d}.jpg") for index in indices]),
    }
    readers = {name: reader for name, reader in readers.items() if name not in PEERS or name in found}
    errors = find_errors(work, readers)
    variants = {
        "respike": lambda: run_respike(work, arguments.epochs),
        "multi-scale": lambda: run_respike(work, arguments.epochs, crop="multi-scale"),
        "3 crops": lambda: run_evaluation(work, num_crops=3),
    }
    variants |= {name: lambda reader=reader: run_reader(work, reader) for name, reader in readers.items()}
    return harness.compare(
        f"loader {video.name}",
        variants,
        baseline="respike",
        rounds=arguments.rounds,
        units=dict.fromkeys([*readers, "3 crops"], len(work.clips))
        | dict.fromkeys(("respike", "multi-scale"), len(work.clips) * arguments.epochs),
        unit="clip",
        facts={"clips": len(work.clips), "sampling": sampling},
        extras=errors,
        left_out=left_out,
    )


def prepare_video(video: Path, sampling: Sampling, out: Path) -> Work:
    """Write the shards of one video."""
    ref = VideoRef(video_id=video.name, path=video, label=0, class_name="c", subset="train")
    listing = VideoListing(dataset="bench", split=None, evaluation_subset="test", classes=("c",), videos=(ref,))
    prepare(listing, out, PrepareConfig(sampling=sampling), num_workers=1)
    shards = open_shards(out)
    return Work(video=video, shards=shards, clips=[list(clip.info.frame_indices) for clip in shards])


def write_jpegs(video: Path, out: Path) -> Path:
    """Write every frame of a video as a JPEG file of quality 90."""
    out.mkdir()
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            content = simplejpeg.encode_jpeg(frame.to_ndarray(format="rgb24"), quality=90, colorsubsampling="420")
            (out / f"{index:05d}.jpg").write_bytes(content)
    return out


def find_errors(work: Work, readers: dict[str, Reader]) -> dict[str, dict[str, str]]:
    """Compare the frames of each reader with a plain decode, to mark readers that return other frames."""
    indices = work.clips[-1]
    expected = read_pyav(work.video, indices).astype(np.int16)
    errors = {
        name: float(np.abs(np.asarray(reader(work.video, indices)).astype(np.int16) - expected).mean())
        for name, reader in readers.items()
    }
    return {
        name: {"reads other frames": f"mean difference {error:.1f} grey levels"}
        for name, error in errors.items()
        if error > 4
    }


def run_respike(work: Work, num_epochs: int, crop: CropKind = "resized") -> None:
    """Read the shards with the training loader."""
    batch_size = min(BATCH_SIZE, len(work.clips))
    loader = make_loader(work.shards, batch_size=batch_size, training=True, image_size=SIZE, crop=crop)
    num_clips = sum(len(batch) for _ in range(num_epochs) for batch in loader)
    # an epoch leaves out clips that do not fill a batch; read those too
    rest = num_epochs * len(work.clips) - num_clips
    if rest:
        tail = make_loader(work.shards.select(range(rest)), batch_size=1, training=True, image_size=SIZE)
        assert sum(len(batch) for batch in tail) == rest


def run_evaluation(work: Work, num_crops: int) -> None:
    """Read the shards with the evaluation loader, `num_crops` crops of each clip."""
    loader = make_loader(work.shards, batch_size=BATCH_SIZE, training=False, image_size=SIZE, num_crops=num_crops)
    assert sum(int(batch.mask.sum()) for batch in loader) == len(work.clips) * num_crops


def run_reader(work: Work, reader: Reader) -> None:
    """Read each clip, crop and resize its frames, make batches."""
    for first in range(0, len(work.clips), BATCH_SIZE):
        clips = work.clips[first : first + BATCH_SIZE]
        batch = np.empty((len(clips), len(clips[0]), 3, SIZE, SIZE), np.uint8)
        for position, indices in enumerate(clips):
            frames = reader(work.video, indices)
            view = random_view(*frames.shape[1:3], np.random.default_rng([first, position]), flip=True)
            write_frames(frames, view, batch[position])
        torch.from_numpy(batch)


def write_frames(frames: NDArray[np.uint8], view: View, out: NDArray[np.uint8]) -> None:
    """Crop, resize and mirror frames as the loader does with key frames."""
    for frame, target in zip(frames, out, strict=True):
        cut = frame[view.top : view.top + view.height, view.left : view.left + view.width]
        shrinks = min(cut.shape[:2]) > 2 * SIZE
        resized = cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        resized = cv2.flip(resized, 1) if view.flip else resized
        for channel in range(3):
            cv2.extractChannel(resized, channel, target[channel])


def read_decord(video: Path, indices: list[int]) -> NDArray[np.uint8]:
    """Read frames with decord."""
    import decord

    return decord.VideoReader(str(video), num_threads=1).get_batch(indices).asnumpy()


def read_torchcodec(video: Path, indices: list[int]) -> NDArray[np.uint8]:
    """Read frames with torchcodec, with its default exact seek mode."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(video), num_ffmpeg_threads=1, dimension_order="NHWC")
    return decoder.get_frames_at(indices).data.numpy()


def read_pyav(video: Path, indices: list[int]) -> NDArray[np.uint8]:
    """Read frames with PyAV: decode up to the last index, convert the requested frames."""
    wanted = set(indices)
    with av.open(str(video)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack(list(_pick(container, wanted, max(indices))))


def _pick(container: Any, wanted: set[int], last: int) -> Iterator[NDArray[np.uint8]]:
    for index, frame in enumerate(container.decode(video=0)):
        if index in wanted:
            yield frame.to_ndarray(format="rgb24")
        if index == last:
            return


def read_jpeg(path: Path) -> NDArray[np.uint8]:
    """Read a frame from its JPEG file."""
    return np.asarray(simplejpeg.decode_jpeg(path.read_bytes(), "RGB"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--clips", type=Path, default=Path("../shared/clips"), help="folder of real videos; skipped if missing"
    )
    parser.add_argument(
        "--epochs", type=int, default=2, help="passes of respike in a round; the other variants make one"
    )


if __name__ == "__main__":
    main()
