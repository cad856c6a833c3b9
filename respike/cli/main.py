"""The `respike` program: imports only the command that is called, and prints expected errors as one line."""

import difflib
import importlib
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

import click
from click.shell_completion import CompletionItem

import respike
from respike.common.distributed import shutdown_process_group
from respike.common.errors import RespikeError, RespikeWarning, SettingError

# name → its line in `respike --help`, so that help need not import the commands
COMMANDS = {
    "check": "Count raw videos, and name those that are missing or broken.",
    "prepare": "Turn raw videos into shards of key frames and residual events.",
    "index": "Join the parts that `prepare --part` wrote.",
    "verify": "Check shards against their index; name or drop what is damaged.",
    "inspect": "Show what a set of shards holds, in numbers and pictures.",
    "train": "Train a network on shards.",
    "recipes": "List the recipes of `respike train`, or show one.",
    "runs": "List trainings, or compare some.",
    "score": "Score checkpoints on test shards.",
    "ablate": "Train and score a small grid of settings.",
    "predict": "Classify videos with a trained network.",
    "explain": "Draw what a trained network attends to in a clip.",
    "energy": "Count what a network computes for a clip, and its energy.",
    "export": "Write a trained network as ONNX, or its spiking branch as NIR.",
    "zoo": "List, show, download, check, publish and import weights.",
    "demo": "Make videos, prepare, train and score, all on this machine.",
    "doctor": "Show what is installed and found.",
    "completion": "Let a shell complete commands and options at Tab.",
}
# what a stopped command leaves behind
_AFTER_STOP = {
    "prepare": ": finished shards are kept, run the same command to go on",
    "train": ": what was saved before is kept, `respike train --resume` goes on from it",
    "demo": ": finished videos and shards are kept, run the same command to go on; it trains from the beginning",
    "ablate": ": finished cells are kept, run the same command to go on",
    "download": ": what was received is kept, run the same command to go on",
}
# exit codes; those from 128 on are a shell's codes for signals
FAILED, INTERRUPTED, READER_GONE, TERMINATED = 1, 130, 141, 143
# how click writes bounds: `x>=1` or `0<x<=1`
_RANGE = re.compile(r"is not in the range (?:([-\d.]+)(<=?))?x(<=?|>=?)([-\d.]+)\.$")
_BOUND_WORDS = {">": "above", ">=": "from", "<": "below", "<=": "up to"}


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
        # click suggests names for mistyped options only; this does so for commands, but not while a shell completes
        if not ctx.resilient_parsing and args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            advice = f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command '{args[0]}'. {advice}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click would import every command for its help
        found = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # the reader of the output has gone, as with `| head`, so that nobody is left to tell
            _close_stdout()
            ctx.exit(READER_GONE)
        except SettingError as error:
            raise _name_option(error, _called_command(self, ctx)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _called_command(group: click.Group, context: click.Context) -> click.Command | None:
    name = context.invoked_subcommand
    return None if name is None else group.get_command(context, name)


def _name_option(error: SettingError, command: click.Command | None) -> SettingError:
    """Return the error with the option of its setting in the hint; the library knows no options."""
    options = [option for option in getattr(command, "params", ()) if isinstance(option, click.Option)]
    name = next((option.opts[0] for option in options if option.name == error.setting), "")
    if not name or name in error.problem + error.hint:
        return error
    hint = f"{error.hint} ({name})" if error.hint else f"change {name}"
    return SettingError(error.problem, hint, setting=error.setting)


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


_python_shows_warning = warnings.showwarning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, RespikeWarning):
        print(f"warning: {message}", file=file or sys.stderr)
    else:
        _python_shows_warning(message, category, filename, lineno, file, line)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with `arguments` (None: those of the process); exit with a code unless all went well.

    Codes: 1 an expected problem, 2 wrong usage, 130 interrupted, 141 the reader of the output has gone, 143 terminated.
    Results go to stdout, everything else to stderr. With `--json` an error is one JSON object `{"error", "hint"}` on
    stderr.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal without θ, or a file name that is not text, must not end an hour's work
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    try:
        with _stopped_by_sigterm():
            code = cli.main(args=given, prog_name="respike", standalone_mode=False)
            sys.stdout.flush()
    except RespikeError as error:
        try:
            _fail(error.problem, error.hint, getattr(error, "code", FAILED), as_json)
        finally:
            # after the message: torchrun ends all processes as soon as one has gone
            if error.is_shared:
                shutdown_process_group()
    except click.ClickException as error:
        _fail_usage(error, as_json)
    except (KeyboardInterrupt, click.Abort):
        _fail(f"interrupted{_after_stop(given)}", "", INTERRUPTED, as_json)
    except _Terminated:
        _fail(f"terminated{_after_stop(given)}", "", TERMINATED, as_json)
    except BrokenPipeError:
        _close_stdout()
        sys.exit(READER_GONE)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        _fail(f"{where}{error.strerror or error}", "", FAILED, as_json)
    else:
        # click returns the code of `ctx.exit(code)` instead of raising
        if isinstance(code, int) and code:
            sys.exit(code)


class _Terminated(BaseException):
    """SIGTERM was received. Not an Exception, so that no `except Exception` swallows it."""


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that workers are stopped and temporary files removed."""
    try:
        before = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not in the main thread: a program that embeds this one keeps its own handler
        yield
        return
    try:
        yield
    finally:
        # None is a handler that was not set from Python and cannot be restored from it
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _after_stop(arguments: Sequence[str]) -> str:
    command = "download" if list(arguments[:2]) == ["zoo", "download"] else next(iter(arguments), "")
    return _AFTER_STOP.get(command, "")


def _fail_usage(error: click.ClickException, as_json: bool) -> None:
    """Print wrong usage as click does, with bounds in words, or as JSON; exit."""
    if isinstance(error, click.BadParameter) and _RANGE.search(error.message):
        message = _RANGE.sub(_format_range, error.message)
        error = click.BadParameter(message, error.ctx, error.param, error.param_hint)
    if not as_json:
        error.show()
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else ""
    _fail(error.format_message(), hint, error.exit_code, as_json)


def _format_range(match: re.Match[str]) -> str:
    lowest, sign, other_sign, highest = match.groups()
    lower = f"{'above' if sign == '<' else 'from'} {lowest} " if lowest else ""
    return f"is out of range: give a number {lower}{_BOUND_WORDS[other_sign]} {highest}."


def _fail(problem: str, hint: str, code: int, as_json: bool) -> None:
    from respike.cli import console

    if problem:  # empty if another process prints it
        console.print_error(problem, hint, as_json=as_json)
    sys.exit(code)


def _close_stdout() -> None:
    """Discard output that is still buffered, so that the interpreter does not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
