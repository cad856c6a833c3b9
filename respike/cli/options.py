"""Options that several commands share, and what turns their text into values."""

import difflib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from respike.data.building.plan import Part

DATASETS = ("ucf101", "hmdb51", "kinetics400", "kinetics600", "kinetics700", "folder", "demo")

follow_symlinks = click.option(
    "--follow-symlinks/--no-follow-symlinks", default=True, help="Follow links out of the root.  [default: yes]"
)


class DatasetChoice(click.Choice[str]):
    """A data set by name; one that is mistyped names the nearest, a folder the way to list a folder."""

    def __init__(self) -> None:
        super().__init__(DATASETS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """One of DATASETS. Raises BadParameter with the nearest name or the way to list a folder."""
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


def parse_part(ctx: click.Context, param: click.Parameter, value: str | None) -> "Part | None":
    """K/N, as in `--part 3/16`."""
    if value is None:
        return None
    from respike.data.building.plan import Part
    from respike.errors import SettingError

    number, _, count = value.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise click.BadParameter(f"{value!r} is not K/N, such as 3/16")
    try:
        return Part(number=int(number), count=int(count))
    except SettingError as error:
        raise click.BadParameter(f"{error.problem}: {error.hint}") from error
