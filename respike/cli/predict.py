"""`respike predict`: raw videos to the classes that a trained network sees in them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli import completion, console
from respike.common.text import counted

if TYPE_CHECKING:
    from respike.common.errors import UnreadableVideoError
    from respike.types import EventClip
    from respike.workflows.prediction import VideoPrediction
    from respike.zoo.predictions import Guess

SOME_FAILED = 1


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
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of classes to name.")
@click.option("--each-clip", is_flag=True, help="Print the most probable class of each clip as it is classified.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--quiet", is_flag=True, help="Print only results and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on a line for each video.")
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
    """Classify VIDEOs: class names with probabilities, the mean over the clips of a video.

    Clips are cut, encoded and decoded as `respike prepare` did for the training of the network, so that the result is
    the one that `respike score` counts. A video of any length needs the memory of a few clips. For a video that cannot
    be read, the error and the next step are printed; the others follow, and the command exits 1.
    """
    from respike.workflows.inputs import next_step
    from respike.workflows.prediction import predict

    failed: list[Path] = []

    def report_clip(path: Path, clip: "EventClip", guess: "Guess") -> None:
        first, last = clip.info.times_seconds[0], clip.info.times_seconds[-1]
        if as_json:
            place = {"video": str(path), "clip": clip.info.clip_index, "from_seconds": first, "to_seconds": last}
            console.print_json(place | asdict(guess))
        else:
            share = console.format_share(guess.probability)
            console.print_line(f"{path.name} {first:.2f} to {last:.2f} s: {guess.class_name} {share}")

    def report_failure(path: Path, error: "UnreadableVideoError") -> None:
        failed.append(path)
        hint = next_step(path, error)
        if as_json:
            console.print_json({"video": str(path), "error": str(error), "hint": hint})
        else:
            console.print_error(f"{path}: {error}", hint)

    predictions = predict(
        checkpoint,
        videos,
        top=top,
        device=device,
        on_clip=report_clip if each_clip else None,
        on_failure=report_failure,
        progress=console.make_progress(quiet=quiet, json=as_json),
    )
    for prediction in predictions:
        if as_json:
            console.print_json(prediction.to_json())
        else:
            _print(prediction)
    if failed:
        context.exit(SOME_FAILED)


def _print(prediction: "VideoPrediction") -> None:
    latency, num_clips = prediction.to_json()["latency"], counted(prediction.num_clips, "clip")
    console.print_line(
        f"{prediction.video}: {num_clips}, {console.format_seconds(prediction.video_seconds)}; "
        f"a clip takes {latency['decode_ms_per_clip']:.1f} ms to decode and {latency['network_ms_per_clip']:.1f} ms in "
        f"the network; the first answer came after {latency['first_answer_ms'] / 1000:.1f} s"
    )
    rows = [(guess.class_name, console.format_share(guess.probability)) for guess in prediction.guesses]
    console.print_table(("class", "probability"), rows)
