"""`respike completion`, and what Tab offers. Loads no torch, because a shell waits for the answer."""

import json
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

import respike
from respike.cli.options import DATASETS
from respike.common.files import RUNS_ROOT, find_prepared
from respike.zoo.model_options import MODEL_NAMES

SHELLS = ("bash", "zsh", "fish")
# torchvision has the list, but loads torch
VIDEO_NETWORKS = (
    "mc3_18",
    "mvit_v1_b",
    "mvit_v2_s",
    "r2plus1d_18",
    "r3d_18",
    "s3d",
    "swin3d_b",
    "swin3d_s",
    "swin3d_t",
)
_ZOO = Path(respike.__file__).parent / "zoo"


@click.command(
    epilog="""\b
Examples:
  respike completion bash
  respike completion zsh
  respike completion fish
"""
)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script for SHELL that completes commands, options and names of `respike` at Tab.

    Append it to ~/.bashrc or ~/.zshrc (after `compinit`, which most set-ups call), or write it to
    ~/.config/fish/completions/respike.fish. It takes effect in the next shell.
    """
    from respike.cli import console
    from respike.cli.main import cli

    completion_class = get_completion_class(shell)
    assert completion_class is not None  # click has all of SHELLS
    # when click sees the variable `_RESPIKE_COMPLETE`, it answers with completions instead of running a command
    script = completion_class(cli, {}, "respike", "_RESPIKE_COMPLETE").source()
    for line in script.rstrip().splitlines():
        console.print_line(line)


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer networks by name."""
    return _complete(incomplete, MODEL_NAMES)


def video_networks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer torchvision's video networks and `none`, also after a comma."""
    done, comma, _ = incomplete.rpartition(",")
    return _complete(incomplete, (f"{done}{comma}{name}" for name in (*VIDEO_NETWORKS, "none")))


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer recipes by name, and files."""
    return _complete(incomplete, sorted(path.stem for path in _ZOO.glob("recipes/*.toml")), also="file")


def cards(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer all names of the zoo."""
    return _complete(incomplete, sorted(path.stem for path in _ZOO.glob("cards/*.json")))


def checkpoints(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer runs, weights of the zoo, and files."""
    return _complete(incomplete, _list_checkpoints(), also="file")


def networks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer what `checkpoints` offers, and networks without weights."""
    return _complete(incomplete, (*_list_checkpoints(), *MODEL_NAMES), also="file")


def data_sets(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer prepared shards in the default folder, and folders."""
    return _complete(incomplete, map(str, find_prepared()), also="dir")


def sources(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer data sets of raw videos by name, and folders."""
    return _complete(incomplete, DATASETS, also="dir")


def _list_checkpoints() -> list[str]:
    runs = sorted(str(path.parent) for path in RUNS_ROOT.glob("*/best.safetensors"))
    # a card without files is for weights that are not trained yet
    weights = sorted(path.stem for path in _ZOO.glob("cards/*.json") if json.loads(path.read_bytes()).get("files"))
    return [*runs, *weights]


def _complete(incomplete: str, names: Iterable[str], *, also: str = "") -> list[CompletionItem]:
    """Return the names that begin with `incomplete`. With `also`, the shell adds each `file` or `dir` that does.

    That item comes first, because click's script for bash drops the completions before it.
    """
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type=also), *found] if also else found
