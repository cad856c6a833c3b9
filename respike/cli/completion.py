"""`respike completion`: what a shell reads so that Tab finishes commands, options and paths."""

import click
from click.shell_completion import get_completion_class

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
    from respike.cli import render

    made = get_completion_class(shell)
    if made is None:
        raise AssertionError(f"click knows no completion for {shell}")
    from respike.cli.main import cli

    # `_RESPIKE_COMPLETE` is the variable that click itself asks for when `respike` is called
    for line in made(cli, {}, "respike", "_RESPIKE_COMPLETE").source().rstrip().splitlines():
        render.print_line(line)
