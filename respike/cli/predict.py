"""`respike predict`: raw videos → what they show, clip by clip, through the code that `prepare` uses."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion
from respike.common.text import counted
from respike.workflows.inputs import open_checkpoint, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from respike.common.errors import UnreadableVideoError
    from respike.common.progress import Task
    from respike.data.prepare_config import PrepareConfig
    from respike.types import EventClip
    from respike.zoo.checkpoint import CheckpointSpec
    from respike.zoo.nn.respike import ReSpike
    from respike.zoo.predictions import Guess

SOME_FAILED = 1


@dataclass(frozen=True, kw_only=True)
class VideoPrediction:
    """What a network tells of one video, and how long that took: decoding up to a batch, the network, to a clip."""

    video: str
    guesses: "tuple[Guess, ...]"
    num_clips: int
    video_seconds: float
    decode_seconds: float
    network_seconds: float
    first_answer_seconds: float

    def to_json(self) -> dict[str, Any]:
        """The prediction as `respike predict --json` prints it."""
        return {
            "video": self.video,
            "predictions": [asdict(guess) for guess in self.guesses],
            "num_clips": self.num_clips,
            "video_seconds": round(self.video_seconds, 3),
            "latency": {
                "decode_ms_per_clip": round(1e3 * self.decode_seconds / self.num_clips, 3),
                "network_ms_per_clip": round(1e3 * self.network_seconds / self.num_clips, 3),
                "first_answer_ms": round(1e3 * self.first_answer_seconds, 3),
            },
        }


@click.command(
    epilog="""\b
Examples:
  respike predict runs/respike_r18-ucf101-split1 holiday.mp4
  respike predict runs/mine *.mp4 --top 1 --json
  respike predict runs/mine match.mkv --each-clip
"""
)
@click.argument("checkpoint", metavar="NAME_OR_CHECKPOINT", shell_complete=completion.checkpoints)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="VIDEO...")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes to name.")
@click.option("--each-clip", is_flag=True, help="Tell each clip's best class as it comes.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--quiet", is_flag=True, help="Say nothing but the result and what failed.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, one a video.")
@click.pass_context
def command(
    context: click.Context,
    checkpoint: str,
    videos: tuple[Path, ...],
    top: int,
    each_clip: bool,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Tell what VIDEOs show: class names with probabilities, the mean over a video's clips.

    Clips are cut, encoded and decoded as `respike prepare` did for the network's training, so that the answer is the
    one that `respike score` counts. A video of any length takes the memory of a few clips. A video that cannot be read
    is told with what to do about it; the others go on, and the command exits 1 at the end.
    """
    from respike.cli import console
    from respike.common.errors import UnreadableVideoError
    from respike.zoo.device import resolve_device

    model, spec = open_checkpoint(checkpoint, resolve_device(device))
    settings = settings_of(spec)
    progress = console.make_progress(quiet=quiet, json=as_json)
    num_failed = 0
    with progress.task("predict", total=len(videos), unit="videos") as task:
        for path in videos:
            tell = _teller(path, as_json=as_json) if each_clip else None
            try:
                prediction = predict_video(path, model, spec, settings, top=top, task=task, tell=tell)
            except UnreadableVideoError as error:
                num_failed += 1
                _report_failure(path, error, as_json=as_json)
            else:
                _report(prediction, as_json=as_json)
            task.advance(1, failed=num_failed)
    if num_failed:
        context.exit(SOME_FAILED)


def predict_video(
    path: Path,
    model: "ReSpike",
    spec: "CheckpointSpec",
    settings: "PrepareConfig",
    *,
    top: int,
    task: "Task",
    tell: "Callable[[EventClip, Guess], None] | None" = None,
) -> VideoPrediction:
    """Stream a video through the network; `tell` hears of each clip's best class. Raises UnreadableVideoError."""
    from respike.data.clip_encoder import stream_clips
    from respike.zoo.predictions import best_guesses

    viewer = _Viewer(model, spec, task, tell)
    video = stream_clips(path, settings, viewer)
    return VideoPrediction(
        video=str(path),
        guesses=best_guesses(viewer.vote.probabilities(), spec.data.classes, top),
        num_clips=viewer.vote.num_clips,
        video_seconds=video.seconds,
        decode_seconds=viewer.decode_seconds,
        network_seconds=viewer.network_seconds,
        first_answer_seconds=viewer.first_answer_seconds or 0.0,
    )


class _Viewer:
    """Shows each clip to the network as it comes, and keeps time."""

    def __init__(
        self,
        model: "ReSpike",
        spec: "CheckpointSpec",
        task: "Task",
        tell: "Callable[[EventClip, Guess], None] | None",
    ) -> None:
        self._model, self._spec, self._task, self._tell = model, spec, task, tell
        self._started = self._left = time.perf_counter()
        self.first_answer_seconds: float | None = None
        self.restart()

    def restart(self) -> None:
        from respike.zoo.predictions import VideoVote

        self.vote = VideoVote(self._model)
        self.decode_seconds = self.network_seconds = 0.0

    def take(self, clip: "EventClip") -> None:
        from respike.data.loader import make_batch
        from respike.zoo.predictions import best_guesses

        batch = make_batch([clip], self._spec.image_size, self._spec.eval_crop)
        entered = time.perf_counter()
        self.decode_seconds += entered - self._left
        # the answer lies on the CPU, so that the time holds all of an accelerator's work
        probabilities = self.vote.add(batch)
        self._left = time.perf_counter()
        self.network_seconds += self._left - entered
        self.first_answer_seconds = self.first_answer_seconds or self._left - self._started
        self._task.advance(0, clips=self.vote.num_clips)
        if self._tell is not None:
            self._tell(clip, best_guesses(probabilities[0], self._spec.data.classes, 1)[0])


def _teller(path: Path, *, as_json: bool) -> "Callable[[EventClip, Guess], None]":
    from respike.cli import console

    def tell(clip: "EventClip", guess: "Guess") -> None:
        first, last = clip.info.times_seconds[0], clip.info.times_seconds[-1]
        if as_json:
            place = {"video": str(path), "clip": clip.info.clip_index, "from_seconds": first, "to_seconds": last}
            console.print_json(place | asdict(guess))
        else:
            share = console.format_share(guess.probability)
            console.print_line(f"{path.name} {first:.2f} to {last:.2f} s: {guess.class_name} {share}")

    return tell


def _report(prediction: VideoPrediction, *, as_json: bool) -> None:
    from respike.cli import console

    told = prediction.to_json()
    if as_json:
        console.print_json(told)
        return
    latency, num_clips = told["latency"], counted(prediction.num_clips, "clip")
    console.print_line(
        f"{prediction.video}: {num_clips}, {console.format_seconds(prediction.video_seconds)}; "
        f"a clip takes {latency['decode_ms_per_clip']:.1f} ms to decode and {latency['network_ms_per_clip']:.1f} ms in "
        f"the network; the first answer came after {latency['first_answer_ms'] / 1000:.1f} s"
    )
    rows = [(guess.class_name, console.format_share(guess.probability)) for guess in prediction.guesses]
    console.print_table(("class", "probability"), rows)


def _report_failure(path: Path, error: "UnreadableVideoError", *, as_json: bool) -> None:
    from respike.cli import console
    from respike.workflows.inputs import next_step

    if as_json:
        console.print_json({"video": str(path), "error": str(error), "hint": next_step(path, error)})
    else:
        console.print_error(f"{path}: {error}", next_step(path, error))
