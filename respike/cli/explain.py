"""`respike explain`: a checkpoint and a clip → pictures of what the network looks at, and the numbers behind them."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion
from respike.cli.options import OutputFolder
from respike.common.errors import SettingError
from respike.workflows.inputs import open_checkpoint, settings_of

if TYPE_CHECKING:
    from respike.types import Batch, EventClip
    from respike.zoo.explanation import Explanation, Spot


def _parse_place(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`X,Y` → (x, y)."""
    if value is None:
        return None
    try:
        x, y = (int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no place, needed is X,Y in pixels, as 12,30") from None
    return x, y


@click.command(
    epilog="""\b
Examples:
  respike explain runs/mine shards/ucf101-split1 --clip 12 --out why
  respike explain runs/mine holiday.mp4 --frame 6 --at 100,80 --out why
"""
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.argument("source", metavar="CLIP_OR_VIDEO", type=click.Path(path_type=Path))
@click.option("--out", type=OutputFolder(), required=True, metavar="DIR", help="Where the pictures go.")
@click.option("--clip", "number", type=click.IntRange(min=0), default=0, show_default=True, help="Which clip, from 0.")
@click.option(
    "--frame", type=click.IntRange(min=0), help="Frame of the clip, from 0.  [default: the strongest events']"
)
@click.option(
    "--at", metavar="X,Y", callback=_parse_place, help="Pixel of the network's image.  [default: the strongest events']"
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Tokens to draw at each scale.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print explanation.json as well.")
def command(
    checkpoint: str,
    source: Path,
    out: Path,
    number: int,
    frame: int | None,
    at: tuple[int, int] | None,
    top: int,
    device: str,
    as_json: bool,
) -> None:
    """Draw what the network of CHECKPOINT looks at in a clip of CLIP_OR_VIDEO, a folder of shards or a video.

    \b
    attention.png   the key frame's tokens that a residual's token attends to, at each fused scale
    rasters.png     spikes of each layer at that place, residual by residual
    rates.png       where each layer fires
    evidence.png    class probabilities, key frame by key frame
    explanation.json, arrays.npz: the numbers
    """
    from respike.cli import console
    from respike.common.files import canonical_json, write_atomically
    from respike.data.loader import make_batch
    from respike.workflows.clip_plots import draw_explanation
    from respike.workflows.inputs import find_clip
    from respike.zoo.device import resolve_device
    from respike.zoo.explanation import explain

    model, spec = open_checkpoint(checkpoint, resolve_device(device))
    clip = find_clip(source, number, settings_of(spec))
    batch = make_batch([clip], spec.image_size, spec.eval_crop)
    explanation = explain(model, batch, _choose_spot(batch, clip, frame, at))
    told = _tell(explanation, clip, spec.data.classes, spec.image_size, top)
    out.mkdir(parents=True, exist_ok=True)
    guess = told["predictions"][0]
    label = f", labelled {clip.info.class_name}" if clip.info.class_name else ""
    answer = f"{guess['class_name']} {guess['probability']:.0%}"
    title = f"{clip.info.video}, clip {clip.info.clip_index}{label}: {answer}"
    written = draw_explanation(explanation, batch, spec.data.classes, out, top=top, title=title)
    write_atomically(out / "explanation.json", canonical_json(told, indent=2))
    write_atomically(out / "arrays.npz", _arrays(explanation))
    if as_json:
        console.print_json(told)
        return
    if not explanation.attention:
        console.print_line(f"no attention to draw: the network's branches are {model.config.branches!r}")
    console.print_line(title)
    for path in written:
        console.print_line(f"wrote {path}")


def _choose_spot(batch: "Batch", clip: "EventClip", frame: int | None, at: tuple[int, int] | None) -> "Spot":
    from respike.zoo.explanation import Spot, strongest_spot

    group = step = None
    if frame is not None:
        num_frames = len(clip.keys) * clip.stride
        group, place = divmod(frame, clip.stride)
        if frame >= num_frames or place == 0:
            raise SettingError(
                f"frame {frame} is {'a key frame' if frame < num_frames else 'not in the clip'}",
                f"choose from 1 to {num_frames - 1}, no multiple of {clip.stride}",
            )
        step = place - 1
    found = strongest_spot(batch, group=group, step=step)
    return found if at is None else Spot(group=found.group, step=found.step, row=at[1], column=at[0])


def _tell(
    explanation: "Explanation", clip: "EventClip", classes: tuple[str, ...], image_size: int, top: int
) -> dict[str, Any]:
    """The explanation in numbers, as explanation.json holds it; tokens are given as rows and columns of their grid."""
    from dataclasses import asdict

    import torch

    from respike.zoo.predictions import best_guesses

    spot = explanation.spot
    guesses = best_guesses(torch.from_numpy(explanation.verdict[-1]), classes, 5)
    return {
        "video": clip.info.video,
        "clip": clip.info.clip_index,
        # a video of one's own has none
        "class": clip.info.class_name or None,
        "image_size": image_size,
        "frame": spot.group * clip.stride + spot.step + 1,
        "spot": asdict(spot),
        "predictions": [asdict(guess) for guess in guesses],
        "attention": [
            {
                "scale": found.scale,
                "grid": list(found.weights.shape[1:]),
                "token": list(found.token),
                "top": [{"row": row, "column": column, "weight": weight} for row, column, weight in found.top(top)],
            }
            for found in explanation.attention
        ],
        "firing_rates": {layer.name: layer.rate for layer in explanation.layers},
        "evidence": explanation.evidence.tolist(),
        "verdict": explanation.verdict.tolist(),
    }


def _arrays(explanation: "Explanation") -> bytes:
    """All arrays of an explanation as the bytes of an .npz."""
    import numpy as np

    arrays: dict[str, Any] = {"evidence": explanation.evidence, "verdict": explanation.verdict}
    arrays |= {f"attention.{found.scale}": found.weights for found in explanation.attention}
    for layer in explanation.layers:
        arrays |= {f"{layer.name}.{part}": getattr(layer, part) for part in ("rate_map", "step_rates", "raster")}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
