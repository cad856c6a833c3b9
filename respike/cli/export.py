"""`respike export`: a trained network as a file for other programs: ONNX or NIR."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion, options
from respike.cli.options import OutputFile, check_outputs, require_free
from respike.common.errors import CheckpointError
from respike.workflows.inputs import open_checkpoint, settings_of

if TYPE_CHECKING:
    from respike.zoo.checkpoint import CheckpointSpec
    from respike.zoo.nn.respike import ReSpike


@click.command(
    epilog="""\b
Examples:
  respike export runs/respike_r18-ucf101-split1 --format onnx
  respike export runs/spikes-alone --format nir --out spikes.nir
"""
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.option("--format", "kind", type=click.Choice(["onnx", "nir"]), required=True, help="What to write.")
@click.option(
    "--out",
    type=OutputFile(),
    metavar="FILE",
    help="Where.  [default: beside a run's weights, else here]",
)
@options.overwrite
@click.option(
    "--float64", is_flag=True, help="NIR: keep weights in double precision, so that no spike is rounded away."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written and checked as JSON.")
def command(checkpoint: str, kind: str, out: Path | None, float64: bool, as_json: bool) -> None:
    """Write CHECKPOINT, a run's folder or a .safetensors file, as ONNX or NIR.

    ONNX holds the whole network, for any number of clips at a time, and is compared with PyTorch before it is written.
    NIR holds a network of spikes alone (trained with --branches snn): attention has no place in it. Both need
    `pip install 'respike[export]'`.
    """
    from respike.cli import console

    if float64 and kind != "nir":
        raise click.UsageError("--float64 is for --format nir")
    context = click.get_current_context()
    check_outputs(context)
    model, spec = open_checkpoint(checkpoint, "cpu")
    if out is None:
        out = _default_path(checkpoint, kind)
        require_free(context, out)
    told = _write_onnx(model, spec, out) if kind == "onnx" else _write_nir(model, spec, out, double=float64)
    if as_json:
        console.print_json({"out": str(out), "format": kind, "num_bytes": out.stat().st_size, **told})
        return
    if kind == "onnx":
        console.print_line(
            f"compared with PyTorch on {told['num_clips']} demo clips: logits of up to {told['max_logit']:.3g} "
            f"differ by at most {told['max_difference']:.2g}"
        )
    else:
        console.print_line(
            f"{told['num_nodes']} nodes; step {told['step_seconds']:g} s; reset each group; average the output"
        )
    console.print_line(f"wrote {out}, {console.format_bytes(out.stat().st_size)}")


def _default_path(checkpoint: str, kind: str) -> Path:
    from respike.zoo.checkpoint import find_weights

    try:
        return find_weights(Path(checkpoint)).with_suffix(f".{kind}")
    except CheckpointError:
        # a name of the zoo or an address, whose weights lie in the package or a cache: no place to write to
        return Path(f"{checkpoint.rstrip('/').rpartition('/')[2]}.{kind}")


def _facts(spec: "CheckpointSpec") -> dict[str, Any]:
    """What whoever reads the file needs to feed it and to read its answers."""
    return {"classes": list(spec.data.classes), "settings": dict(spec.data.settings), "model": dict(spec.model)}


def _write_onnx(model: "ReSpike", spec: "CheckpointSpec", out: Path) -> dict[str, Any]:
    from respike.data.loader import make_batch
    from respike.workflows.inputs import demo_clips
    from respike.zoo.export import export_onnx

    clips = demo_clips(settings_of(spec), image_size=spec.image_size)
    check = export_onnx(model, make_batch(clips, spec.image_size), out, facts=_facts(spec))
    return {
        "num_clips": check.num_clips,
        "max_difference": check.max_difference,
        "max_logit": check.max_logit,
    }


def _write_nir(model: "ReSpike", spec: "CheckpointSpec", out: Path, *, double: bool) -> dict[str, Any]:
    from respike.zoo.export import export_nir
    from respike.zoo.export.nir import STEP_SECONDS

    color = settings_of(spec).color
    num_nodes = export_nir(model, out, image_size=spec.image_size, color=color, double=double, facts=_facts(spec))
    return {"num_nodes": num_nodes, "step_seconds": STEP_SECONDS}
