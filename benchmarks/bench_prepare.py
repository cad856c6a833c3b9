"""Preparing a video against reading it, and against what one would do instead, in one process with one thread each.

    python benchmarks/bench_prepare.py [--clips FOLDER] [--copies 10] [--rounds 5] [--json PATH]

- decode: `cv2.VideoCapture.grab` to the end: the least that anyone who reads the video must do
- prepare: `respike prepare`'s work on a video with its default settings, to the bytes of its samples
- jpeg: `ffmpeg -q:v 2`, every frame to a JPEG file
- re-encode: one `ffmpeg` a clip, scaled to 256 pixels, x264 as it comes: what video2dataset runs to resize a video

Clips are short, so each is gone through `--copies` times a round (ffmpeg: looped within one process, which takes its
start off). Figures are ms a source frame.
"""

import argparse
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import cv2
from respike.common.processes import keep_memory
from respike.data.clip_encoder import EncodedClip, encode_video
from respike.data.prepare_config import PrepareConfig
from respike.data.video_writer import ffmpeg_path
from respike.types import VideoRef

import harness
import natural

# the slow one is gone through less often
COPIES_OF_REENCODE = 2


class Sink:
    """Counts the clips' bytes and drops them."""

    def __init__(self) -> None:
        self.num_clips = self.num_bytes = 0

    def add(self, clip: EncodedClip) -> None:
        """Count a clip."""
        self.num_clips += 1
        self.num_bytes += sum(len(content) for content in clip.members.values())

    def restart(self) -> None:
        """Forget the video's clips."""
        self.num_clips = self.num_bytes = 0


def main() -> None:
    """Make the clips, go through them, publish one table a clip."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    cv2.setNumThreads(1)
    # as in the processes that `respike prepare` starts
    keep_memory()
    with tempfile.TemporaryDirectory() as scratch:
        clips = [natural.make_natural_clip(Path(scratch), kind) for kind in natural.KINDS]
        if arguments.clips is not None and arguments.clips.is_dir():
            clips += sorted(path for path in arguments.clips.iterdir() if path.is_file())
        for clip in clips:
            path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{clip.stem}")
            harness.publish(compare(clip, Path(scratch) / "out", arguments), path)


def compare(clip: Path, out: Path, arguments: argparse.Namespace) -> dict:
    """Measure all on one clip."""
    out.mkdir(exist_ok=True)
    num_frames = decode(clip, 1)
    prepared = prepare(clip, 1)
    respike_bytes = prepared.num_bytes / prepared.num_clips / PrepareConfig().clip_length
    dump_jpegs(clip, out, 1)
    jpegs = list(out.iterdir())
    assert len(jpegs) == num_frames, "ffmpeg and OpenCV count differently"
    jpeg_bytes = sum(path.stat().st_size for path in jpegs) / len(jpegs)
    copies = arguments.copies
    comparison = harness.compare(
        f"prepare {clip.name}",
        {
            "decode": lambda: void(decode(clip, copies)),
            "prepare": lambda: void(prepare(clip, copies)),
            "jpeg": partial(dump_jpegs, clip, out, copies),
            "re-encode": partial(reencode, clip, out, COPIES_OF_REENCODE),
        },
        baseline="decode",
        rounds=arguments.rounds,
        units=dict.fromkeys(("decode", "prepare", "jpeg"), num_frames * copies)
        | {"re-encode": num_frames * COPIES_OF_REENCODE},
        unit="frame",
        facts={"frames": num_frames, "bytes a frame as it lies": round(clip.stat().st_size / num_frames)},
        extras={
            "prepare": {"bytes a frame": round(respike_bytes), "of the JPEGs'": round(respike_bytes / jpeg_bytes, 3)},
            "jpeg": {"bytes a frame": round(jpeg_bytes)},
        },
    )
    for path in out.iterdir():
        path.unlink()
    return comparison


def void(result: object) -> None:
    """Drop a result: what a contender returns would be taken for seconds."""


def decode(clip: Path, copies: int) -> int:
    """Decode every frame and look at none; return how many a copy has."""
    num_frames = 0
    for _ in range(copies):
        capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        num_frames = 0
        while capture.grab():
            num_frames += 1
        capture.release()
    return num_frames


def prepare(clip: Path, copies: int) -> Sink:
    """Encode the video's clips."""
    sink = Sink()
    video = VideoRef(video_id=clip.name, path=clip, label=0, class_name="c", subset="train")
    for _ in range(copies):
        sink.restart()
        encode_video(video, PrepareConfig(), sink, training=True, beat=lambda num_frames: None)
    return sink


def dump_jpegs(clip: Path, out: Path, copies: int) -> None:
    """Write every frame as a JPEG file."""
    run_ffmpeg(clip, copies, "", "-q:v", "2", str(out / "%05d.jpg"))


def reencode(clip: Path, out: Path, copies: int) -> None:
    """Encode the video again with its short side at 256 pixels."""
    scale = ",scale='if(gt(iw,ih),-2,256)':'if(gt(iw,ih),256,-2)'"
    run_ffmpeg(clip, copies, scale, "-an", str(out / "small.mp4"))


def run_ffmpeg(clip: Path, copies: int, filters: str, *output: str) -> None:
    """Run ffmpeg with one thread on so many copies of a clip, one after the other."""
    looped = ["-threads", "1", "-stream_loop", str(copies - 1), "-i", str(clip)]
    quiet = [ffmpeg_path(), "-y", "-nostdin", "-loglevel", "error", "-filter_threads", "1"]
    # times anew: those of a loop over an AVI with B-frames run backwards where a copy ends
    counted = ["-vf", f"settb=1/25,setpts=N{filters}", "-fps_mode", "passthrough"]
    subprocess.run([*quiet, *looped, *counted, "-threads", "1", *output], check=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is worked on."""
    parser.add_argument("--clips", type=Path, default=Path("../shared/clips"), help="a folder of real videos, if any")
    parser.add_argument("--copies", type=int, default=10)


if __name__ == "__main__":
    main()
