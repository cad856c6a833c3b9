"""The `respike` program: loads only what a command needs, turns foreseen errors into one line."""

import difflib
import importlib
import sys
from typing import Any

import click

import respike
from respike.errors import RespikeError

# name → what `respike --help` says of it, so that help need not load the commands
COMMANDS = {
    "prepare": "Turn raw videos into shards of key frames and residual events.",
    "inspect": "Show what a set of shards holds, in numbers and pictures.",
    "train": "Train a network on shards.",
    "score": "Score a checkpoint on held-out shards.",
    "demo": "Make videos, prepare, train and score, all on this machine.",
    "doctor": "Show what is installed and found.",
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"respike.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if near := difflib.get_close_matches(args[0], COMMANDS, n=1):
                raise click.UsageError(f"{error.message} Did you mean '{near[0]}'?", ctx) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(respike.__version__, prog_name="respike")
def cli() -> None:
    """Raw videos to key frames and residual events, and networks that learn from them.

    \b
    Try it:               respike demo
    A data set:           respike prepare ucf101 --stride 4
    A network from it:    respike train
    Its accuracy:         respike score runs/respike_r18-ucf101-split1
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the program and exit: 0 well, 1 a foreseen problem, 2 wrong usage, 130 interrupted."""
    try:
        cli.main(args=arguments, prog_name="respike", standalone_mode=False)
    except RespikeError as error:
        _print_error(error)
        sys.exit(1)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what was finished is kept, run the same command to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output has gone, as with `| head`; nothing is left to say it to
        sys.stderr.close()
        sys.exit(141)


def _print_error(error: RespikeError) -> None:
    click.echo(click.style("error: ", fg="red") + error.problem, err=True)
    if error.hint:
        click.echo(click.style("hint: ", fg="yellow") + error.hint, err=True)
