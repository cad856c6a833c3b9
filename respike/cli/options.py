"""Options that several commands share, and what turns their text into values."""

import dataclasses
import difflib
import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from respike.data.building.plan import Part
    from respike.data.layouts import Layout, ListingRequest

_Function = TypeVar("_Function", bound=Callable[..., Any])
DATASETS = ("ucf101", "hmdb51", "kinetics400", "kinetics600", "kinetics700", "folder", "demo")

workers = click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
quiet = click.option("--quiet", is_flag=True, help="Say nothing but warnings and errors.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


def packed(
    name: str, kind: type, *options: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[_Function], Callable[..., Any]]:
    """A decorator that gives a command `options`, whose values reach it as one dataclass `kind` under `name`."""
    fields = [field.name for field in dataclasses.fields(kind)]

    def decorate(function: _Function) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **values: Any) -> Any:
            chosen = kind(**{field: values.pop(field) for field in fields})
            return function(*arguments, **values, **{name: chosen})

        decorated: Callable[..., Any] = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


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


@dataclass(frozen=True, kw_only=True)
class VideoChoice:
    """Which videos are meant: a data set by name, where it lies, and what of it."""

    dataset: str
    root: Path | None
    list_path: Path | None
    split: int | None
    follow_symlinks: bool

    def __post_init__(self) -> None:
        if self.list_path is not None and self.dataset != "folder":
            raise click.UsageError(f"--list goes with `folder`; {self.dataset} has lists of its own")

    @property
    def layout(self) -> "Layout":
        """How the data set is listed."""
        from respike.data.layouts import LAYOUTS

        return LAYOUTS.get(self.dataset)

    def request(self, *, seed: int = 0) -> "ListingRequest":
        """What the layout is asked; without a split the first of those there are."""
        from respike.data.layouts import ListingRequest

        return ListingRequest(
            root=self.root or Path("data") / self.dataset,
            split=self.split if self.split is not None else next(iter(self.layout.splits), None),
            seed=seed,
            list_path=self.list_path,
            follow_symlinks=self.follow_symlinks,
        )

    def to_arguments(self) -> str:
        """The arguments that name the same videos to another command, as a shell takes them."""
        given = {"--root": self.root, "--list": self.list_path, "--split": self.split}
        parts = [part for name, value in given.items() if value is not None for part in (name, str(value))]
        return shlex.join([self.dataset, *parts, *([] if self.follow_symlinks else ["--no-follow-symlinks"])])


def video_choice(function: _Function) -> Callable[..., Any]:
    """The argument and the options that say which raw videos are meant; they reach the command as `videos`."""
    path = click.Path(path_type=Path)
    return packed(
        "videos",
        VideoChoice,
        click.argument("dataset", type=DatasetChoice(), metavar="DATASET"),
        click.option("--root", type=path, help="Where the videos lie.  [default: data/DATASET]"),
        click.option("--list", "list_path", type=path, help="folder: CSV or JSONL of path,label[,subset]."),
        click.option("--split", type=int, help="Which official split.  [default: 1 where there are splits]"),
        click.option(
            "--follow-symlinks/--no-follow-symlinks", default=True, help="Follow links out of the root.  [default: yes]"
        ),
    )(function)


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
