"""`respike energy`: operations and joules of a network for one clip, compared with other networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion, console, options
from respike.cli.options import PICTURE, OutputFile
from respike.common.text import format_joules

if TYPE_CHECKING:
    from respike.workflows.energy import EnergyComparison
    from respike.zoo.energy import EnergyReport


@click.command(
    cls=options.ListCommand,
    epilog="""\b
Examples:
  respike energy runs/respike_r18-ucf101-split1 --data shards/ucf101-split1
  respike energy respike_r18
  respike energy respike_r18 --compare r3d_18,swin3d_t --png energy.png
""",
)
@click.argument("network", metavar="MODEL_OR_CHECKPOINT", shell_complete=completion.networks)
@click.option(
    "--data",
    shell_complete=completion.data_sets,
    metavar="DIR",
    help="Prepared shards to measure firing rates on.  [default: a demo video]",
)
@click.option("--subset", help="train, val or test.  [default: the one that the data set is scored on]")
@click.option(
    "--clips", "num_clips", type=click.IntRange(min=1), default=64, show_default=True, help="Most clips of --data."
)
@click.option("--stride", type=click.IntRange(min=2), help="Frames a group of the demo video.  [default: 4]")
@click.option("--clip-length", type=click.IntRange(min=2), help="Frames a clip of the demo video.  [default: 16]")
@click.option(
    "--image-size", type=click.IntRange(min=32), help="Pixels, a multiple of 32.  [default: as in training, else 224]"
)
@options.several(
    "--compare",
    pattern=r"(?!respike)[a-z0-9_]+",
    shell_complete=completion.video_networks,
    metavar="NAME,…",
    help="torchvision's video networks, or none.  [default: its 3D ResNets]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--force", is_flag=True, help="Go on if checkpoint and --data do not fit; the result says so.")
@click.option("--layers", is_flag=True, help="Print a row for each layer as well, as --json always does.")
@click.option("--png", type=OutputFile(PICTURE), metavar="FILE", help="Draw the comparison.")
@options.overwrite
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON: counts of one clip, joules.")
def command(
    network: str, compare: tuple[str, ...], png: Path | None, layers: bool, as_json: bool, **settings: Any
) -> None:
    """Count what MODEL_OR_CHECKPOINT computes for one clip, and its energy in 45 nm CMOS.

    A multiply-accumulate takes 4.6 pJ, an accumulate 0.9 pJ. A convolution whose inputs are spikes accumulates once
    for each spike. How many spikes there are is measured, on shards or on a demo video that is made for it.
    torchvision's 3D networks are counted at 112² and 224².

    If `respike score` would refuse to score the checkpoint on --data, this command refuses as well: the firing rates
    would be different.
    """
    from respike.workflows import plots
    from respike.workflows.energy import DEFAULT_BASELINES, measure_energy

    options.check_outputs(click.get_current_context())
    baselines = () if compare == ("none",) else compare or DEFAULT_BASELINES
    comparison = measure_energy(network, compare=baselines, **settings)
    if png is not None:
        plots.save_figure(plots.draw_energy(comparison), png)
    if as_json:
        console.print_json(comparison.to_json())
        return
    _print(comparison, layers=layers)
    if png is not None:
        console.print_line(f"wrote {png}")


def _print(comparison: "EnergyComparison", *, layers: bool) -> None:
    from respike.zoo.energy import MAC_JOULES

    report = comparison.report
    console.print_line(
        f"{comparison.title}: one clip of {comparison.num_frames} frames at {comparison.image_size}², "
        f"key frames: {comparison.num_keys}; firing rates of {comparison.clips}",
        folds=True,
    )
    console.print_table(("part", "MACs", "accumulates", "energy"), _part_rows(report))
    if not layers:
        console.print_line(f"layers: {len(report.layers)}; --layers prints a row for each")
    if report.repeated_kv_macs:
        console.print_line(
            f"keys and values of the fusions are counted once a group; at every step, as the published code computes "
            f"them, they add {format_operations(report.repeated_kv_macs)} MACs, and the clip takes "
            f"{format_joules(report.repeated_kv_joules)}",
            folds=True,
        )
    if report.stem_event_density is not None:
        console.print_line(
            f"the stem is counted as dense; counted by its events, {console.format_share(report.stem_event_density)} "
            f"of its input, the clip takes {format_joules(report.sparse_stem_joules)}",
            folds=True,
        )
        console.print_line(
            f"not counted: {format_operations(report.neuron_updates)} neuron updates, "
            f"{format_joules(report.neuron_joules)} at a MAC each; memory",
            folds=True,
        )
    console.print_table(
        ("network, the same clip", "MACs", "accumulates", "energy", "ratio"),
        [
            (name, *_cells(macs, acs, joules), f"{joules / report.joules:.2f}×")
            for name, macs, acs, joules in comparison.rows()
        ],
    )
    for remark in comparison.remarks:
        console.print_line(remark, folds=True)
    if comparison.remarks and report.acs:
        console.print_line(
            f"at any firing rates a clip takes from {format_joules(report.macs * MAC_JOULES)} (no neuron fires) to "
            f"{format_joules(report.most_joules)} (all fire at each step)",
            folds=True,
        )
    if layers:
        console.print_table(
            ("layer", "input rate", "MACs", "accumulates", "energy"),
            [
                (
                    layer.name,
                    "real" if layer.input_rate is None else console.format_share(layer.input_rate),
                    *_cells(layer.macs, layer.acs, layer.joules),
                )
                for layer in report.layers
            ],
        )


def _part_rows(report: "EnergyReport") -> list[tuple[str, ...]]:
    """Return a row for each branch, each followed by its stages, and at the end a row for all together."""
    rows = []
    totals = report.by_branch()
    for branch, parts in report.by_part().items():
        rows.append((branch, *_cells(*totals[branch])))
        if len(parts) > 1:
            rows += [(f"  {name}", *_cells(*figures)) for name, figures in parts.items()]
    return [*rows, ("all", *_cells(report.macs, report.acs, report.joules))]


def _cells(macs: float, acs: float, joules: float) -> tuple[str, str, str]:
    return format_operations(macs), format_operations(acs), format_joules(joules)


def format_operations(count: float) -> str:
    """Return a number of operations for people: 1.23 G, 45.6 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f}"
