"""The `respike` program: loads only what a command needs, turns foreseen errors into one line."""

import difflib
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click
from click.shell_completion import CompletionItem

import respike
from respike.common.errors import RespikeError
from respike.common.signals import ShutdownNotice

# name → what `respike --help` says of it, so that help need not load the commands
COMMANDS = {
    "check": "Count raw videos, and name those that are missing or broken.",
    "prepare": "Turn raw videos into shards of key frames and residual events.",
    "index": "Join the parts that `prepare --part` wrote.",
    "verify": "Hold shards against their index; name or drop what is damaged.",
    "inspect": "Show what a set of shards holds, in numbers and pictures.",
    "train": "Train a network on shards.",
    "recipes": "List the recipes of `respike train`, or show one.",
    "runs": "List trainings, or compare some.",
    "score": "Score checkpoints on held-out shards.",
    "ablate": "Train and score a small grid of settings.",
    "predict": "Tell what videos show, by a trained network.",
    "explain": "Draw what a trained network looks at in a clip.",
    "energy": "Count what a network computes for a clip, and its energy.",
    "export": "Write a trained network as ONNX, or its spiking branch as NIR.",
    "zoo": "List, show, fetch, check, publish and import weights.",
    "demo": "Make videos, prepare, train and score, all on this machine.",
    "doctor": "Show what is installed and found.",
    "completion": "Let a shell finish commands and options at Tab.",
}
# what stopping a command half-way leaves behind
_AFTER_STOP = {
    "prepare": ": finished shards are kept, run the same command to go on",
    "train": ": what was saved before is kept, `respike train --resume` goes on from it",
    "demo": ": finished videos and shards are kept, run the same command to go on",
    "ablate": ": finished cells are kept, run the same command to go on",
    "download": ": what was received is kept, run the same command to go on",
}
# `x>=1` or `0<x<=1`, as click says it
_RANGE = re.compile(r"is not in the range (?:([-\d.]+)(<=?))?x(<=?|>=?)([-\d.]+)\.$")
_SIGNS = {">": "above", ">=": "from", "<": "below", "<=": "up to"}
FAILED, INTERRUPTED, READER_GONE, TERMINATED = 1, 130, 141, 143


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
        # click names options only; a mistyped command deserves the same, but not while a shell asks what Tab could mean
        if not ctx.resilient_parsing and args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            advice = f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command '{args[0]}'. {advice}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click would import every command for its help
        found = [CompletionItem(name, help=told) for name, told in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # the reader of our output has gone, as with `| head`; nothing is left to say it to
            _close_stdout()
            ctx.exit(READER_GONE)

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with `arguments` (None: the process's own) and exit by code where it does not end well.

    Codes: 1 a foreseen problem, 2 wrong usage, 130 interrupted, 141 the reader of the output has gone, 143 terminated.
    Results go to stdout, all else to stderr. Where the arguments ask for `--json`, an error is one JSON object
    `{"error", "hint"}` on stderr.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
    remark = ShutdownNotice()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal that lacks θ, or a file name that is no text, must not end an hour's work
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stopped_by_sigterm():
            code = cli.main(args=given, prog_name="respike", standalone_mode=False, obj=remark)
            sys.stdout.flush()
    except RespikeError as error:
        _fail(error.problem, error.hint, getattr(error, "code", FAILED), as_json)
    except click.ClickException as error:
        _refuse(error, as_json)
    except (KeyboardInterrupt, click.Abort):
        _fail(_stopped("interrupted", given) + remark.text, "", INTERRUPTED, as_json)
    except _Terminated:
        _fail(_stopped("terminated", given) + remark.text, "", TERMINATED, as_json)
    except BrokenPipeError:
        _close_stdout()
        sys.exit(READER_GONE)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        _fail(f"{where}{error.strerror or error}", "", FAILED, as_json)
    else:
        # click hands the code of `ctx.exit(code)` back instead of raising
        if isinstance(code, int) and code:
            sys.exit(code)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that workers are stopped and temporary files removed."""
    try:
        before = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not in the main thread: whoever embeds us keeps its own handler
        yield
        return
    try:
        yield
    finally:
        # None: a handler that was not set from Python and cannot be set back from it
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class _Terminated(BaseException):
    """SIGTERM came; no `except Exception` may swallow it."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _stopped(how: str, arguments: Sequence[str]) -> str:
    command = "download" if list(arguments[:2]) == ["zoo", "download"] else next(iter(arguments), "")
    return how + _AFTER_STOP.get(command, "")


def _refuse(error: click.ClickException, as_json: bool) -> None:
    """Tell wrong usage in click's own way, but for its formulas, or as JSON."""
    if isinstance(error, click.BadParameter) and _RANGE.search(error.message):
        said = _RANGE.sub(_say_range, error.message)
        error = click.BadParameter(said, error.ctx, error.param, error.param_hint)
    if not as_json:
        error.show()
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else ""
    _fail(error.format_message(), hint, error.exit_code, as_json)


def _say_range(found: re.Match[str]) -> str:
    least, sign, other_sign, most = found.groups()
    lower = f"{'above' if sign == '<' else 'from'} {least} " if least else ""
    return f"is out of range: give a number {lower}{_SIGNS[other_sign]} {most}."


def _fail(problem: str, hint: str, code: int, as_json: bool) -> None:
    from respike.cli import console

    if problem:  # empty where another process tells it
        console.print_error(problem, hint, as_json=as_json)
    sys.exit(code)


def _close_stdout() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not complain of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
