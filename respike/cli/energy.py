"""`respike energy`: a network and clips → operations and joules, a row a layer, beside other networks."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli import completion
from respike.cli.options import PNG, OutputFile, require_apart, spreading_command
from respike.common.text import agree, counted
from respike.workflows.energy import EnergyComparison, compare_energy

if TYPE_CHECKING:
    from respike.zoo.energy import EnergyReport


def _names_network(word: str) -> bool:
    """Whether a word after --compare is one more network of torchvision's, and not MODEL_OR_CHECKPOINT."""
    return re.fullmatch(r"(?!respike)[a-z0-9_,]+", word) is not None and not Path(word).exists()


@click.command(
    cls=spreading_command({"--compare": _names_network}),
    epilog="""\b
Examples:
  respike energy runs/respike_r18-ucf101-split1 --data shards/ucf101-split1
  respike energy respike_r18
  respike energy respike_r18 --compare r3d_18 swin3d_t --png energy.png
""",
)
@click.argument("network", metavar="MODEL_OR_CHECKPOINT", shell_complete=completion.networks)
@click.option(
    "--data",
    shell_complete=completion.data_sets,
    metavar="DIR",
    help="Prepared shards to measure firing rates on.  [default: a made demo video]",
)
@click.option("--subset", help="train, val or test.  [default: the one that the data set is scored on]")
@click.option("--clips", type=click.IntRange(min=1), default=64, show_default=True, help="Most clips of --data to run.")
@click.option("--stride", type=click.IntRange(min=2), help="Frames a group, of the demo video.  [default: 4]")
@click.option("--clip-length", type=click.IntRange(min=2), help="Frames a clip, of the demo video.  [default: 16]")
@click.option(
    "--image-size", type=click.IntRange(min=32), help="Pixels, a multiple of 32.  [default: the training's, else 224]"
)
@click.option(
    "--compare",
    shell_complete=completion.video_networks,
    metavar="NAME...",
    multiple=True,
    callback=lambda _, __, given: tuple(name.strip() for each in given for name in each.split(",")),
    help="torchvision's video networks, or none.  [default: its 3D ResNets]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--force", is_flag=True, help="Go on where checkpoint and --data do not fit; the account says so.")
@click.option("--layers", is_flag=True, help="Print a row for each layer as well, as --json always does.")
@click.option("--png", type=OutputFile(PNG), metavar="FILE", help="Draw the comparison.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON: counts of one clip, joules.")
def command(network: str, png: Path | None, layers: bool, as_json: bool, **options: Any) -> None:
    """Count what MODEL_OR_CHECKPOINT computes for one clip, and its energy in 45 nm CMOS.

    A multiply-accumulate takes 4.6 pJ, an accumulate 0.9 pJ. Convolutions that see spikes accumulate where one
    arrives; how often is measured, on shards or on a demo video made on the spot. torchvision's 3D networks are
    counted at 112² and 224².

    --data that `respike score` would refuse a checkpoint on is refused here, too: rates on other clips are others.
    """
    from respike.cli import console

    require_apart(click.get_current_context())
    account = compare_energy(network, **options)
    if png is not None:
        from respike.workflows.plots import draw_energy

        draw_energy(account, png)
    if as_json:
        console.print_json(account.to_json())
        return
    _print(account, layers=layers)
    if png is not None:
        console.print_line(f"wrote {png}")


def _print(account: EnergyComparison, *, layers: bool) -> None:
    from respike.cli import console
    from respike.zoo.energy import MAC_JOULES

    report = account.report
    console.print_line(
        f"{account.title}: one clip of {account.num_frames} frames at {account.image_size}², {account.num_keys} of "
        f"them {agree(account.num_keys, 'a key frame', 'key frames')}; firing rates of {account.clips}",
        folds=True,
    )
    console.print_table(("part", "MACs", "accumulates", "energy"), _parts(report))
    if not layers:
        console.print_line(f"{counted(len(report.layers), 'layer')}; --layers prints a row for each")
    if report.stem_event_density is not None:
        console.print_line(
            f"the stem is counted dense; by its events ({console.format_share(report.stem_event_density)} of its "
            f"input) the clip takes {format_joules(report.sparse_stem_joules)}",
            folds=True,
        )
        console.print_line(
            f"not counted: {format_count(report.neuron_updates)} neuron updates, "
            f"{format_joules(report.neuron_joules)} at a MAC each; memory",
            folds=True,
        )
    console.print_table(
        ("network, the same clip", "MACs", "accumulates", "energy", "ratio"),
        [(name, *_operations(*figures), f"{figures[2] / report.joules:.2f}×") for name, *figures in account.rows()],
    )
    for remark in account.remarks:
        console.print_line(remark, folds=True)
    if account.remarks and report.acs:
        console.print_line(
            f"whatever the rates, a clip takes from {format_joules(report.macs * MAC_JOULES)} (no neuron fires) to "
            f"{format_joules(report.most_joules)} (all fire at each step)",
            folds=True,
        )
    if layers:
        _print_layers(report)


def _parts(report: "EnergyReport") -> list[tuple[str, ...]]:
    """A row a branch, below it its stages, at the end all together."""
    rows = []
    totals = report.by_branch()
    for branch, parts in report.by_part().items():
        rows.append((branch, *_operations(*totals[branch])))
        if len(parts) > 1:
            rows += [(f"  {name}", *_operations(*figures)) for name, figures in parts.items()]
    return [*rows, ("all", *_operations(report.macs, report.acs, report.joules))]


def _print_layers(report: "EnergyReport") -> None:
    from respike.cli import console

    console.print_table(
        ("layer", "input rate", "MACs", "accumulates", "energy"),
        [
            (
                layer.name,
                "real" if layer.input_rate is None else console.format_share(layer.input_rate),
                *_operations(layer.macs, layer.acs, layer.joules),
            )
            for layer in report.layers
        ],
    )


def _operations(macs: float, acs: float, joules: float) -> tuple[str, str, str]:
    return format_count(macs), format_count(acs), format_joules(joules)


def format_count(count: float) -> str:
    """A number of operations for people: 1.23 G, 45.6 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f}"


def format_joules(joules: float) -> str:
    """An energy for people: 12.3 mJ, 45.6 µJ."""
    return f"{1e3 * joules:.2f} mJ" if joules >= 1e-3 else f"{1e6 * joules:.2f} µJ"
