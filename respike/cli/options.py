"""Options that several commands share: settings, videos, output paths and lists of values."""

import difflib
import itertools
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.common.config import Setting, settings_of

if TYPE_CHECKING:
    from respike.data.plan import Part


DATASETS = ("ucf101", "hmdb51", "kinetics400", "kinetics600", "kinetics700", "folder", "demo")

workers = click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one for each core]")
quiet = click.option("--quiet", is_flag=True, help="Print nothing but warnings and errors.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


def config_options(
    kind: type, *, default: bool = True, **overrides: Mapping[str, Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command an option for each setting of the Config `kind` that has an option name.

    An option that is not given is passed to the command as None, so that a recipe or a data set may decide. With
    `default` the help shows the default. `overrides` are click's arguments by setting, such as
    `image_size={"metavar": "PX"}`. The Config itself checks bounds.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(settings_of(kind)):
            if setting.option:
                function = _click_option(setting, default, overrides.get(setting.name, {}))(function)
        return function

    return decorate


def _click_option(setting: Setting, default: bool, overrides: Mapping[str, Any]) -> Callable[[Any], Any]:
    text = setting.help
    if default:
        text += f"  [default: {_format_default(setting)}]"
    name = f"--{setting.option}"
    if setting.is_switch:
        arguments: dict[str, Any] = {"help": text, "default": None}
        return click.option(f"{name}/--no-{setting.option}", setting.name, **arguments | dict(overrides))
    arguments = {"help": text, "metavar": setting.metavar}
    if setting.is_choice:
        arguments["type"] = click.Choice(list(setting.choices))
    elif (number := setting.number_type) is not None:
        arguments["type"] = number
    return click.option(name, setting.name, **arguments | dict(overrides))


def _format_default(setting: Setting) -> str:
    value = setting.default
    if value is None:
        return "none"
    return setting.option if value is True else f"no-{setting.option}" if value is False else str(value)


class DatasetChoice(click.Choice[str]):
    """A data set by name. The error for another word suggests the nearest name, or how to list a folder."""

    def __init__(self) -> None:
        super().__init__(DATASETS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return one of DATASETS. Raises BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            if near := difflib.get_close_matches(value.lower(), DATASETS, n=1):
                advice = f" Did you mean '{near[0]}'?"
            elif Path(value).is_dir():
                advice = f" For your own videos in class folders: `folder --root {shlex.quote(value)}`."
            else:
                raise
            raise click.BadParameter(f"{error.message}{advice}", ctx, param) from None


def video_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument and the options that name raw videos, for `respike.prepare`."""
    path = click.Path(path_type=Path)
    for option in (
        click.option(
            "--follow-symlinks/--no-follow-symlinks", default=True, help="Follow links out of the root.  [default: yes]"
        ),
        click.option("--split", type=int, help="Which official split.  [default: 1 if there are splits]"),
        click.option("--list", "list_path", type=path, help="folder: CSV or JSONL of path,label[,subset]."),
        click.option("--root", type=path, help="Where the videos are.  [default: data/DATASET]"),
        click.argument("dataset", type=DatasetChoice(), metavar="DATASET"),
    ):
        function = option(function)
    return function


def parse_part(ctx: click.Context, param: click.Parameter, value: str | None) -> "Part | None":
    """Parse K/N, as in `--part 3/16`."""
    if value is None:
        return None
    from respike.common.errors import SettingError
    from respike.data.plan import Part

    number, _, count = value.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise click.BadParameter(f"{value!r} is not K/N, such as 3/16")
    try:
        return Part(number=int(number), count=int(count))
    except SettingError as error:
        raise click.BadParameter(f"{error.problem}: {error.hint}") from error


# suffixes of pictures and of pages, which respike can make again: a file with one of them is replaced without asking
PICTURE = (".png",)
PAGE = (".html", ".htm")
_OVERWRITE = "respike.overwrite"


class OutputFile(click.Path):
    """A file to write. One that exists is only replaced with --overwrite, or if it has one of `replaced_suffixes`.

    A folder, or a file in a folder that cannot be written to, is refused at once. `check_outputs` does the rest.
    """

    def __init__(self, replaced_suffixes: Sequence[str] = ()) -> None:
        super().__init__(path_type=Path)
        self.replaced_suffixes = replaced_suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path. Raises BadParameter that says why it cannot be written."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.is_dir():
            raise click.BadParameter(f"cannot write {path}: it is a folder; name a file in it", ctx, param)
        if reason := _find_objection(path.parent):
            raise click.BadParameter(f"cannot write {path}: {path.parent}: {reason}", ctx, param)
        return path


class OutputFolder(click.Path):
    """A folder to write to, which is made if it does not exist. One that cannot be made or written to is refused."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path. Raises BadParameter that says why nothing can be written there."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        # the folder is not made yet, because the command may still be refused
        nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if reason := _find_objection(nearest):
            raise click.BadParameter(f"cannot write to {path}: {nearest}: {reason}", ctx, param)
        return path


def _find_objection(folder: Path) -> str:
    """Return why no file can be made in `folder`, or an empty text if one can."""
    if not folder.exists():
        return "there is no such folder; make it first"
    if not folder.is_dir():
        return "it is not a folder"
    try:
        # tried for real, because permissions do not tell whether a file system is read-only or full
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{error.strerror or error}; choose another place"


def _note_overwrite(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.meta[_OVERWRITE] = value


overwrite = click.option(
    "--overwrite",
    is_flag=True,
    expose_value=False,
    callback=_note_overwrite,
    help="Replace an output file that exists.",
)


def check_outputs(context: click.Context) -> None:
    """Check every OutputFile that the command was given, before it does anything.

    Raises UsageError if a file is also an input of the command, is written twice, or exists and must not be replaced.
    """
    given = [(parameter, path) for parameter in context.command.params for path in _paths(context, parameter)]
    outputs = [(parameter, path) for parameter, path in given if isinstance(parameter.type, OutputFile)]
    inputs = [(parameter, path) for parameter, path in given if not isinstance(parameter.type, OutputFile)]
    for number, (parameter, path) in enumerate(outputs):
        for other, other_path in outputs[:number] + inputs:
            if _is_same_file(path, other_path):
                names = dict.fromkeys(map(_spell, (parameter, other)))
                raise click.UsageError(f"cannot write {path}: {' and '.join(names)} name the same file", context)
    for parameter, path in outputs:
        assert isinstance(parameter.type, OutputFile)
        if path.suffix.lower() not in parameter.type.replaced_suffixes:
            require_free(context, path)


def require_free(context: click.Context, path: Path) -> None:
    """Raise UsageError if the file exists and --overwrite was not given."""
    if path.exists() and not context.meta.get(_OVERWRITE):
        raise click.UsageError(
            f"cannot write {path}: the file exists; choose another name, or add --overwrite", context
        )


def _paths(context: click.Context, parameter: click.Parameter) -> Iterator[Path]:
    """Return what a parameter was given that may be a path."""
    value = context.params.get(parameter.name or "")
    for each in value if isinstance(value, tuple | list) else [value]:
        if isinstance(each, str | Path):
            yield Path(each)


def _is_same_file(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))


def _spell(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name


# the comma next to a word, for values that hold commas between numbers
WORD_COMMA = r",(?=[a-z])|(?<=[a-z]),"


class ListOption(click.Option):
    """An option with several values, as `--stride 2,4,8` or by repeating the option.

    `separator` is a regular expression, `pattern` one that a value matches, which only serves to recognize a mistake.
    """

    def __init__(self, names: Sequence[str], *, pattern: str, separator: str = ",", **attributes: Any) -> None:
        super().__init__(names, multiple=True, **attributes)
        self.pattern, self.separator = pattern, separator

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Split every text at the separator, then convert each part."""
        if isinstance(value, list | tuple):
            value = [part for each in value for part in self._split(each)]
        return super().type_cast_value(ctx, value)

    def _split(self, value: Any) -> list[Any]:
        return [part.strip() for part in re.split(self.separator, value)] if isinstance(value, str) else [value]

    def find_advice(self, arguments: Sequence[str]) -> str:
        """Return how to write values that were separated by spaces, or an empty text if there are none."""
        for position, word in enumerate(arguments):
            name, equals, first = word.partition("=")
            if name not in self.opts:
                continue
            values = [first] if equals else list(arguments[position + 1 : position + 2])
            following = arguments[position + 1 + len(values) - bool(equals) :]
            values += itertools.takewhile(re.compile(self.pattern).fullmatch, following)
            if len(values) > 1:
                spelled = f"{name} {','.join(values)}"
                if self.separator != ",":
                    spelled = " ".join(f"{name} {value}" for value in values)
                return f"{name} takes several values without spaces between them: {spelled}"
        return ""


class ListCommand(click.Command):
    """A command that tells how to write several values of a ListOption, if they were separated by spaces."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            advice = (option.find_advice(given) for option in self.params if isinstance(option, ListOption))
            # subclasses are about one option or argument; the values after a space are unexpected arguments
            if type(error) is click.UsageError and (text := next(filter(None, advice), "")):
                raise click.UsageError(text, ctx) from None
            raise


def several(
    *names: str, pattern: str, separator: str = ",", **attributes: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command a ListOption; use it with `cls=ListCommand`."""
    if "default" in attributes:
        attributes.setdefault("show_default", True)
    return click.option(*names, cls=ListOption, pattern=pattern, separator=separator, **attributes)
