"""Options that several commands share, and what turns their text into values."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from respike.data.building.plan import Part

follow_symlinks = click.option(
    "--follow-symlinks/--no-follow-symlinks", default=True, help="Follow links out of the root.  [default: yes]"
)


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
