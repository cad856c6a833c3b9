"""`respike export`: a trained network as a file for other programs: ONNX or NIR."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli import completion, console, options
from respike.cli.options import OutputFile, check_outputs, require_free

if TYPE_CHECKING:
    from respike.workflows.exports import ExportFormat


@click.command(
    epilog="""\b
Examples:
  respike export runs/respike_r18-ucf101-split1 --format onnx
  respike export runs/spikes-alone --format nir --out spikes.nir
"""
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.option("--format", "kind", type=click.Choice(["onnx", "nir"]), required=True, help="Format of the file.")
@click.option(
    "--out",
    type=OutputFile(),
    metavar="FILE",
    help="File to write.  [default: beside the weights of a run, else in this folder]",
)
@options.overwrite
@click.option(
    "--float64", is_flag=True, help="NIR: keep weights in double precision, so that rounding changes no spike."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written and checked as JSON.")
def command(checkpoint: str, kind: "ExportFormat", out: Path | None, float64: bool, as_json: bool) -> None:
    """Write CHECKPOINT, the folder of a run or a .safetensors file, as ONNX or NIR.

    ONNX holds the whole network, for any number of clips at a time, and is compared with PyTorch before it is written.
    NIR holds a network of spikes alone (trained with --branches snn), because NIR has no attention. Both need
    `pip install 'respike[export]'`.
    """
    from respike.workflows.exports import default_path, export

    if float64 and kind != "nir":
        raise click.UsageError("--float64 is for --format nir")
    check_outputs(click.get_current_context())
    if out is None:
        out = default_path(checkpoint, kind)
        require_free(click.get_current_context(), out)
    exported = export(checkpoint, out, format=kind, float64=float64)
    facts = exported.to_json()
    if as_json:
        console.print_json(facts)
        return
    if exported.check is not None:
        console.print_line(
            f"compared with PyTorch on {exported.check.num_clips} demo clips: logits of up to "
            f"{exported.check.max_logit:.3g} differ by at most {exported.check.max_difference:.2g}"
        )
    else:
        console.print_line(
            f"{exported.num_nodes} nodes; step {facts['step_seconds']:g} s; reset each group; average the output"
        )
    console.print_line(f"wrote {out}, {console.format_bytes(exported.num_bytes)}")
