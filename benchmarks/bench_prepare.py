"""Time to prepare a video, compared with decoding alone, a JPEG dump and re-encoding. One process, one thread each.

    python benchmarks/bench_prepare.py [--clips FOLDER] [--copies 10] [--rounds 5] [--json PATH]

- decode: `cv2.VideoCapture.grab` to the end; every reader of the video has to do at least this
- prepare: the work of `respike prepare` on a video with default settings, up to the bytes of its samples
- jpeg: `ffmpeg -q:v 2`, every frame to a JPEG file
- re-encode: one `ffmpeg` for each video, scaled to 256 pixels, x264 with its defaults, as video2dataset resizes videos

Videos are short, so each is processed `--copies` times in a round. ffmpeg loops over the copies in one process, which
hides its start. Times are ms for each source frame. The version of ffmpeg is printed, because it changes the ratios.
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

# re-encoding is slow, so it has fewer copies
COPIES_OF_REENCODE = 2


class Sink:
    """Receives encoded clips; counts them and their bytes."""

    def __init__(self) -> None:
        self.num_clips = self.num_bytes = 0

    def add(self, clip: EncodedClip) -> None:
        """Add a clip to the counts."""
        self.num_clips += 1
        self.num_bytes += sum(len(content) for content in clip.members.values())

    def restart(self) -> None:
        """Reset the counts, as for a video that is encoded again."""
        self.num_clips = self.num_bytes = 0


def main() -> None:
    """Make the videos; measure and report each."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    cv2.setNumThreads(1)
    # as in the worker processes of `respike prepare`
    keep_memory()
    with tempfile.TemporaryDirectory() as scratch:
        clips = [natural.make_natural_clip(Path(scratch), kind) for kind in natural.KINDS]
        if arguments.clips is not None and arguments.clips.is_dir():
            clips += sorted(path for path in arguments.clips.iterdir() if path.is_file())
        for clip in clips:
            path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{clip.stem}")
            harness.report(compare(clip, Path(scratch) / "out", arguments), path)


def compare(clip: Path, out: Path, arguments: argparse.Namespace) -> dict:
    """Measure all variants on one video."""
    out.mkdir(exist_ok=True)
    num_frames = decode(clip, 1)
    prepared = prepare(clip, 1)
    respike_bytes = prepared.num_bytes / prepared.num_clips / PrepareConfig().clip_length
    dump_jpegs(clip, out, 1)
    jpegs = list(out.iterdir())
    assert len(jpegs) == num_frames, "ffmpeg and OpenCV found different numbers of frames"
    jpeg_bytes = sum(path.stat().st_size for path in jpegs) / len(jpegs)
    copies = arguments.copies
    comparison = harness.compare(
        f"prepare {clip.name}",
        {
            "decode": lambda: discard(decode(clip, copies)),
            "prepare": lambda: discard(prepare(clip, copies)),
            "jpeg": partial(dump_jpegs, clip, out, copies),
            "re-encode": partial(reencode, clip, out, COPIES_OF_REENCODE),
        },
        baseline="decode",
        rounds=arguments.rounds,
        units=dict.fromkeys(("decode", "prepare", "jpeg"), num_frames * copies)
        | {"re-encode": num_frames * COPIES_OF_REENCODE},
        unit="frame",
        facts={
            "frames": num_frames,
            "bytes a frame of the file": round(clip.stat().st_size / num_frames),
            "ffmpeg": ffmpeg_version(),
        },
        extras={
            "prepare": {
                "bytes a frame": round(respike_bytes),
                "share of JPEG bytes": round(respike_bytes / jpeg_bytes, 3),
            },
            "jpeg": {"bytes a frame": round(jpeg_bytes)},
        },
    )
    for path in out.iterdir():
        path.unlink()
    return comparison


def discard(result: object) -> None:
    """Return nothing: the harness would take a returned number for seconds."""


def ffmpeg_version() -> str:
    """Return the version of the ffmpeg that is measured, such as `7.0.2-static`."""
    answer = subprocess.run([ffmpeg_path(), "-version"], capture_output=True, text=True, check=True).stdout
    return answer.removeprefix("ffmpeg version ").partition(" ")[0]


def decode(clip: Path, copies: int) -> int:
    """Decode every frame without using it; return the number of frames of one copy."""
    num_frames = 0
    for _ in range(copies):
        capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        num_frames = 0
        while capture.grab():
            num_frames += 1
        capture.release()
    return num_frames


def prepare(clip: Path, copies: int) -> Sink:
    """Encode the clips of the video."""
    sink = Sink()
    video = VideoRef(video_id=clip.name, path=clip, label=0, class_name="c", subset="train")
    for _ in range(copies):
        sink.restart()
        encode_video(video, PrepareConfig(), sink, training=True, on_frames=lambda num_frames: None)
    return sink


def dump_jpegs(clip: Path, out: Path, copies: int) -> None:
    """Write every frame as a JPEG file."""
    run_ffmpeg(clip, copies, "", "-q:v", "2", str(out / "%05d.jpg"))


def reencode(clip: Path, out: Path, copies: int) -> None:
    """Re-encode the video with a short side of 256 pixels."""
    scale = ",scale='if(gt(iw,ih),-2,256)':'if(gt(iw,ih),256,-2)'"
    run_ffmpeg(clip, copies, scale, "-an", str(out / "small.mp4"))


def run_ffmpeg(clip: Path, copies: int, filters: str, *output: str) -> None:
    """Run ffmpeg with one thread on `copies` copies of a video, one after another."""
    looped = ["-threads", "1", "-stream_loop", str(copies - 1), "-i", str(clip)]
    quiet = [ffmpeg_path(), "-y", "-nostdin", "-loglevel", "error", "-filter_threads", "1"]
    # new timestamps: in a loop over an AVI with B-frames they would go back at the end of a copy
    counted = ["-vf", f"settb=1/25,setpts=N{filters}", "-fps_mode", "passthrough"]
    subprocess.run([*quiet, *looped, *counted, "-threads", "1", *output], check=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--clips", type=Path, default=Path("../shared/clips"), help="folder of real videos; skipped if missing"
    )
    parser.add_argument("--copies", type=int, default=10, help="copies of each video in a round")


if __name__ == "__main__":
    main()
