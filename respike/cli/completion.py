"""Completion: what Tab offers. Loads no torch, because a shell waits for it."""

import json
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

import respike
from respike.cli.options import DATASETS
from respike.data.index import SHARDS_ROOT
from respike.zoo.run_folder import BEST_NAME, RUNS_ROOT

# what `list_models` and `list_baselines` give, which load torch for it
MODELS = ("respike_r18", "respike_r50", "respike_mobile", "respike_convnext", "respike_tiny", "respike")
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


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Networks by name."""
    return _beginning(incomplete, MODELS)


def video_networks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Torchvision's video networks, and `none`."""
    return _beginning(incomplete, (*VIDEO_NETWORKS, "none"))


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Recipes by name, and files."""
    return _beginning(incomplete, sorted(path.stem for path in _ZOO.glob("recipes/*.toml")), beside="file")


def cards(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """All names of the zoo."""
    return _beginning(incomplete, sorted(path.stem for path in _card_paths()))


def checkpoints(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs, weights of the zoo, and files."""
    return _beginning(incomplete, _trained(), beside="file")


def networks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What `checkpoints` offers, and networks without weights."""
    return _beginning(incomplete, (*_trained(), *MODELS), beside="file")


def data_sets(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Prepared shards where they are by default, and folders."""
    found = sorted(str(path.parent) for path in SHARDS_ROOT.glob("*/dataset.json"))
    return _beginning(incomplete, found, beside="dir")


def sources(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Data sets of raw videos by name, and folders."""
    return _beginning(incomplete, DATASETS, beside="dir")


def _trained() -> list[str]:
    runs = sorted(str(path.parent) for path in RUNS_ROOT.glob(f"*/{BEST_NAME}"))
    # a card without files is of weights that are still to be trained
    weights = sorted(path.stem for path in _card_paths() if json.loads(path.read_bytes()).get("files"))
    return [*runs, *weights]


def _card_paths() -> list[Path]:
    return list(_ZOO.glob("cards/*.json"))


def _beginning(incomplete: str, names: Iterable[str], *, beside: str = "") -> list[CompletionItem]:
    """The names that begin as what was typed; `beside` lets the shell look for a `file` or `dir`.

    That comes first: at its line the script for bash drops what it had.
    """
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type=beside), *found] if beside else found


SHELLS = ("bash", "zsh", "fish")


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
    """Print the lines that teach SHELL to finish commands, options and choices of `respike` at Tab.

    Append them to ~/.bashrc or ~/.zshrc (after `compinit`, which most set-ups call), or write them to
    ~/.config/fish/completions/respike.fish. They take effect in the next shell.
    """
    from respike.cli import console

    made = get_completion_class(shell)
    if made is None:
        raise AssertionError(f"click knows no completion for {shell}")
    from respike.cli.main import cli

    # `_RESPIKE_COMPLETE` is the variable that click itself asks for when `respike` is called
    for line in made(cli, {}, "respike", "_RESPIKE_COMPLETE").source().rstrip().splitlines():
        console.print_line(line)
