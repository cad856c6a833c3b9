"""`respike explain`: a checkpoint and a clip to pictures and numbers of what the network looks at."""

from pathlib import Path

import click

from respike.cli import completion, console
from respike.cli.options import OutputFolder


def _parse_place(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read `X,Y` as (x, y)."""
    if value is None:
        return None
    try:
        x, y = (int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not X,Y in pixels, such as 12,30") from None
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
@click.option("--out", type=OutputFolder(), required=True, metavar="DIR", help="Folder for the pictures.")
@click.option(
    "--clip", "number", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the clip, from 0."
)
@click.option("--frame", type=click.IntRange(min=0), help="Frame of the clip, from 0.  [default: strongest events]")
@click.option(
    "--at", metavar="X,Y", callback=_parse_place, help="Pixel of the network's image.  [default: strongest events]"
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
    explanation.json, arrays.npz   the numbers
    """
    from respike.workflows.explanation import explain

    explanation = explain(checkpoint, source, clip=number, frame=frame, at=at, device=device)
    pictures = explanation.save(out, top=top)
    if as_json:
        console.print_json(explanation.to_json(top=top))
        return
    if not explanation.explanation.attention:
        console.print_line(f"no attention to draw: the network's branches are {explanation.branches!r}")
    console.print_line(explanation.title)
    for path in pictures:
        console.print_line(f"wrote {path}")
