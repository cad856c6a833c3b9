"""Spreading: options that take several values in a row, `--stride 2 4 8` for `--stride 2 --stride 4 --stride 8`."""

from collections.abc import Callable, Mapping, Sequence

import click
from click.shell_completion import CompletionItem

# options by name, and what a value of theirs looks like
Spread = Mapping[str, Callable[[str], bool]]


def spreading_command(spread: Spread) -> type[click.Command]:
    """A kind of command, for click's `cls`, whose options in `spread` take several values in a row."""

    class SpreadingCommand(click.Command):
        def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
            return super().parse_args(ctx, spread_values(args, spread))

        def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
            # after a first value click knows only of what comes next, not that more may follow
            spreading = [param for param in self.params if not spread.keys().isdisjoint(param.opts)]
            begun = [param for param in spreading if ctx.params.get(str(param.name))]
            more = [item for param in begun for item in param.shell_complete(ctx, incomplete)]
            return [*more, *super().shell_complete(ctx, incomplete)]

    return SpreadingCommand


def spread_values(arguments: Sequence[str], spread: Spread) -> list[str]:
    """Repeat an option before each of its values; what does not look like one of them ends the row."""
    rest, repeated = list(arguments), []
    while rest:
        word = rest.pop(0)
        repeated.append(word)
        if word in spread and rest:
            # the first value is the command's to judge
            repeated.append(rest.pop(0))
            while rest and spread[word](rest[0]):
                repeated += [word, rest.pop(0)]
    return repeated
